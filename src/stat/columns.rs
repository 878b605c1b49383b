//! Text in columns: the first to the left, numbers to the right; or as CSV has it.

/// Each row ends with a newline. Control characters have no place in a cell.
pub fn align(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            text += &if index == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

/// `part` in per cent of `whole`; a dash where there is nothing to be a part of.
pub fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_string(),
        _ => format!("{:.1}", part as f64 * 100.0 / whole as f64),
    }
}

/// A text as a field of CSV.
pub fn quoted(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["CPU", "RUNS"], vec!["10", "é"], vec!["total"], vec![]];
        let rows = rows.map(|row| row.into_iter().map(String::from).collect());
        assert_eq!(align(&rows), "CPU    RUNS\n10        é\ntotal\n\n");
        assert_eq!(align(&[]), "");
    }

    #[test]
    fn a_part_of_nothing_is_no_number() {
        assert_eq!(
            (percent(1, 3), percent(7, 2), percent(0, 0)),
            ("33.3".into(), "350.0".into(), "-".into())
        );
    }

    #[test]
    fn only_what_would_be_misread_is_quoted() {
        assert_eq!(
            (quoted("a b"), quoted("a,b"), quoted("\"")),
            ("a b".into(), "\"a,b\"".into(), "\"\"\"\"".into())
        );
    }
}
