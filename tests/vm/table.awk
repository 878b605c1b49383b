# Turns lines KERNEL BACKEND CHECK VERDICT FIGURES... into two tables. One has a column for each
# kernel on which all was checked. The other has a row for each kernel with words on its command
# line.
{
    check = $2 == "-" ? $3 : $3 " " $2
    cell = $4
    for (i = 5; i <= NF; i++) cell = cell " " $i
    which = index($1, "+") > 0
    row = which ? $1 : check
    column = which ? check : $1
    # The last try of a check counts.
    if ((which, row, column) in text) verdicts[verdict[which, row, column]]--
    verdicts[$4]++
    verdict[which, row, column] = $4
    text[which, row, column] = cell
    if (!((which, "column", column) in known)) { known[which, "column", column] = ++columns[which]; title[which, columns[which]] = column }
    if (!((which, "row", row) in known)) { known[which, "row", row] = ++rows[which]; name[which, rows[which]] = row }
    c = known[which, "column", column]
    width[which, 0] = longest(width[which, 0], row)
    width[which, c] = longest(longest(width[which, c], column), cell)
}
function longest(so_far, word) {
    return length(word) > so_far ? length(word) : so_far
}
function rule(width,   dashes) {
    dashes = sprintf("%" (width + 2) "s", "")
    gsub(/ /, "-", dashes)
    return dashes "|"
}
function table(which, corner,   r, c) {
    width[which, 0] = longest(width[which, 0], corner)
    printf "| %-" width[which, 0] "s |", corner
    for (c = 1; c <= columns[which]; c++) printf " %-" width[which, c] "s |", title[which, c]
    printf "\n|%s", rule(width[which, 0])
    for (c = 1; c <= columns[which]; c++) printf "%s", rule(width[which, c])
    printf "\n"
    for (r = 1; r <= rows[which]; r++) {
        printf "| %-" width[which, 0] "s |", name[which, r]
        for (c = 1; c <= columns[which]; c++) printf " %-" width[which, c] "s |", text[which, name[which, r], title[which, c]]
        printf "\n"
    }
    printf "\n"
}
END {
    if (rows[0]) table(0, "check backend")
    if (rows[1]) table(1, "kernel")
    printf "%d ok, %d failed, %d not to be had, %d for information\n", verdicts["ok"], verdicts["FAIL"], verdicts["no"], verdicts["info"]
}
