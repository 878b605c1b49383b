//! Text in aligned columns, and fields of CSV.

/// Aligns the first column to the left, and all others to the right. Each row ends with a newline.
/// Cells must not have control characters.
pub(super) fn align(rows: &[Vec<String>]) -> String {
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

/// Returns `part` in percent of `whole`; a dash if `whole` is 0.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_string(),
        _ => format!("{:.1}", part as f64 * 100.0 / whole as f64),
    }
}

/// Returns a text as a field of CSV.
pub(super) fn quoted(text: &str) -> String {
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
