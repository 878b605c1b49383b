# Turns lines KERNEL BACKEND CHECK VERDICT FIGURES... into a table with a column for each kernel.
{
    row = $3 " " $2
    cell = $4
    for (i = 5; i <= NF; i++) cell = cell " " $i
    if (!($1 in column)) { column[$1] = ++columns; title[columns] = $1; width[columns] = length($1) }
    if (!(row in known)) { known[row] = 1; order[++rows] = row }
    text[row, column[$1]] = cell
    if (length(cell) > width[column[$1]]) width[column[$1]] = length(cell)
    verdicts[$4]++
}
END {
    printf "| %-26s |", "check backend"
    for (c = 1; c <= columns; c++) printf " %-" width[c] "s |", title[c]
    printf "\n|----------------------------|"
    for (c = 1; c <= columns; c++) { dashes = sprintf("%" (width[c] + 2) "s", ""); gsub(/ /, "-", dashes); printf "%s|", dashes }
    printf "\n"
    for (r = 1; r <= rows; r++) {
        printf "| %-26s |", order[r]
        for (c = 1; c <= columns; c++) printf " %-" width[c] "s |", ((order[r], c) in text) ? text[order[r], c] : ""
        printf "\n"
    }
    printf "%d ok, %d failed, %d for information\n", verdicts["ok"], verdicts["FAIL"], verdicts["info"]
}
