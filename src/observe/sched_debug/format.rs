//! The layout of a table of tasks in the debug file: the place of the name, and the columns.
//!
//! The kernel prints a row in one of these formats, under a header that only partly matches it:
//!
//! | kernel     | row begins with | then                                                  |
//! |------------|-----------------|-------------------------------------------------------|
//! | 3.x        | `%c%15s %5d`    | tree-key switches prio ...                            |
//! | 4.14 - 5.7 | `%c%c%15s %5d`  | tree-key switches prio ...                            |
//! | 5.8 - 6.5  | `%c%c %15s %5d` | tree-key switches prio ...                            |
//! | 6.6 - 6.11 | the same        | vruntime E deadline slice sum-exec switches prio ...  |
//! | 6.12 on    | the same        | the same, and `S` before `slice` if the task chose it |
//!
//! The header matches the row from 6.12 on. Some kernels print more columns without a name in the
//! header: the NUMA node and group, or one more sum. The cgroup, if there is one, comes last.
//!
//! A task chooses its name: up to 15 bytes, anything but NUL. So the parser takes the name by
//! position and length. The kernel prints the rest of the row from numbers, and the parser splits
//! it at blanks.

/// The width of the column of the name, which is right-aligned. No name is longer.
const NAME_LEN: usize = 15;

/// The positions of `switches` and `prio` among the numbers after the pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Columns {
    switches: usize,
    prio: usize,
}

/// The columns of kernels 6.6 to 6.11, which print the header of older kernels.
const EEVDF: Columns = Columns { switches: 4, prio: 5 };

/// The layout of one table, read from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    name_at: usize,
    columns: Columns,
    /// Whether the header has the column `eligible` (E or N). Such a header also gives the true
    /// position of the other columns.
    knows_eligible: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Running,
    Waiting,
    /// In any state but runnable.
    Other,
}

/// A row, split by position, without trust in its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub state: State,
    /// Without the blanks that align it. A name's own leading blanks look the same and are lost
    /// too.
    pub name: &'a [u8],
    /// From the pid to the end of the line.
    tail: &'a [u8],
}

/// The values of a row after the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers<'a> {
    pub pid: i32,
    pub switches: u64,
    pub prio: i32,
    /// The task's cgroup; empty where the kernel prints none.
    pub group: &'a [u8],
}

impl Layout {
    /// Reads the header. The error names what it lacks.
    pub(super) fn from_header(header: &[u8]) -> Result<Layout, &'static str> {
        let mut rest = header;
        let mut first = next_word(&mut rest);
        let has_state = first == Some(b"S");
        if has_state {
            first = next_word(&mut rest);
        }
        if first != Some(b"task") {
            return Err("the header has no column 'task'");
        }
        // The header is aligned like the rows, so a name ends in the column in which `task` ends.
        let name_at = match (header.len() - rest.len()).checked_sub(NAME_LEN) {
            Some(at @ 2..=3) if has_state => at,
            Some(at @ 1) if !has_state => at,
            _ => return Err("the header has the column 'task' in an unknown place"),
        };
        if next_word(&mut rest) != Some(b"PID") {
            return Err("the header has no column 'PID'");
        }
        let (mut switches, mut prio, mut knows_eligible) = (None, None, false);
        let mut column = 0;
        while let Some(word) = next_word(&mut rest) {
            match word {
                // This column holds a letter, not a number.
                b"eligible" => {
                    knows_eligible = true;
                    continue;
                }
                b"switches" => switches = switches.or(Some(column)),
                b"prio" => prio = prio.or(Some(column)),
                _ => {}
            }
            column += 1;
        }
        Ok(Layout {
            name_at,
            columns: Columns {
                switches: switches.ok_or("the header has no column 'switches'")?,
                prio: prio.ok_or("the header has no column 'prio'")?,
            },
            knows_eligible,
        })
    }

    /// Returns whether rows distinguish sleeping tasks from waiting ones. Kernels 3.x do not print
    /// the state, and list only queued tasks.
    pub(super) fn has_state(&self) -> bool {
        self.name_at > 1
    }

    /// Splits the first row off `text`; `None` if `text` does not begin with a whole row.
    pub(super) fn split_row<'a>(&self, text: &'a [u8]) -> Option<(Row<'a>, &'a [u8])> {
        let (mark, rest) = text.split_at_checked(self.name_at)?;
        let state = match mark {
            b"R" | b">R" | b">R " => State::Running,
            b" " | b" R" | b" R " => State::Waiting,
            [b' ', letter] | [b' ', letter, b' '] if letter.is_ascii_alphabetic() => State::Other,
            _ => return None,
        };
        let (name, rest) = rest.split_at_checked(NAME_LEN)?;
        let end = rest.iter().position(|&b| b == b'\n')?;
        let (tail, rest) = (&rest[..end], &rest[end + 1..]);
        if tail.first() != Some(&b' ') {
            return None;
        }
        let name = &name[name.iter().position(|&b| b != b' ').unwrap_or(NAME_LEN)..];
        Some((Row { state, name, tail }, rest))
    }

    /// Returns the values of a row; `None` if the kernel can't have printed the row.
    pub(super) fn numbers<'a>(&self, row: &Row<'a>) -> Option<Numbers<'a>> {
        let mut rest = row.tail;
        let pid = next_word(&mut rest)?;
        // The kernel prints a blank, and then the pid in at least 5 columns. A table with another
        // layout fails this check.
        if row.tail.len() - rest.len() != 1 + pid.len().max(5) {
            return None;
        }
        let pid = decimal(pid)?;
        let mut columns = self.columns;
        let (mut switches, mut prio) = (None, None);
        let mut column = 0;
        while switches.is_none() || prio.is_none() {
            let word = next_word(&mut rest)?;
            match word {
                // Flags take no column: E or N (eligible or not), and S (the task chose its slice).
                [b'E' | b'N'] if column == 1 => {
                    if !self.knows_eligible {
                        columns = EEVDF;
                    }
                    continue;
                }
                [b'A'..=b'Z'] => continue,
                [b'0'..=b'9' | b'-', ..] => {}
                _ => return None,
            }
            if column == columns.switches {
                switches = Some(decimal(word)?);
            } else if column == columns.prio {
                prio = Some(decimal(word)?);
            }
            column += 1;
        }
        // Only numbers come before the path of the cgroup, which begins with a slash and may
        // contain blanks.
        let group = rest.iter().position(|&b| b == b'/').map_or(&[][..], |at| &rest[at..]);
        Some(Numbers { pid, switches: switches?, prio: prio?, group })
    }
}

/// Removes the next word from the text and returns it. Blanks separate words.
pub(super) fn next_word<'a>(text: &mut &'a [u8]) -> Option<&'a [u8]> {
    let start = text.iter().position(|&b| b != b' ')?;
    let rest = &text[start..];
    let (word, rest) = rest.split_at(rest.iter().position(|&b| b == b' ').unwrap_or(rest.len()));
    *text = rest;
    Some(word)
}

/// Parses a decimal number; `None` if it has a plus sign or does not fit its type.
pub(super) fn decimal<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    if word.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDEST: &str =
        "            task   PID         tree-key  switches  prio     exec-runtime         sum-exec";
    const OLD: &str =
        " S           task   PID         tree-key  switches  prio     wait-time             sum-exec";
    const MIDDLE: &str =
        " S            task   PID         tree-key  switches  prio     wait-time             sum-exec";
    const NEW: &str = " S            task   PID       vruntime   eligible    deadline             slice          \
                       sum-exec      switches  prio         wait-time        sum-sleep       sum-block  group-path";

    const EEVDF_ROW: &str = ">R             hog 1234567         0.000000 N         0.634874         1.400000      2830.763696 \
         19551    -1         0.0 2830.7 0.0 0.0 0 0 /a group/b \n";

    /// State, name, pid, switches, prio and cgroup of one row, as one line.
    fn read(header: &str, row: &[u8]) -> Option<String> {
        let layout = Layout::from_header(header.as_bytes()).unwrap();
        let (row, rest) = layout.split_row(row)?;
        assert_eq!(rest, b"");
        let numbers = layout.numbers(&row)?;
        let text = String::from_utf8_lossy;
        Some(format!(
            "{:?} '{}' {} {} {} '{}'",
            row.state,
            text(row.name),
            numbers.pid,
            numbers.switches,
            numbers.prio,
            text(numbers.group)
        ))
    }

    #[test]
    fn every_generation_of_rows_is_read() {
        for (header, row, expected) in [
            (
                OLDEST,
                "Rfifteen chars x  1234      1028.828291        84    49      1028.8 23.879124 /\n",
                "Running 'fifteen chars x' 1234 84 49 '/'",
            ),
            (
                OLDEST,
                "      kthreadd x 12345      1028.828291        84   120               0\n",
                "Waiting 'kthreadd x' 12345 84 120 ''",
            ),
            (
                OLD,
                " Rfifteen chars x  1234      1028.828291        84    49         0.0 23.87 0 0 /\n",
                "Waiting 'fifteen chars x' 1234 84 49 '/'",
            ),
            (
                MIDDLE,
                " R          rcuc/1    23        -2.976285        69    98         0.0 13.16 /\n",
                "Waiting 'rcuc/1' 23 69 98 '/'",
            ),
            (MIDDLE, EEVDF_ROW, "Running 'hog' 1234567 19551 -1 '/a group/b '"),
            (NEW, EEVDF_ROW, "Running 'hog' 1234567 19551 -1 '/a group/b '"),
        ] {
            assert_eq!(read(header, row.as_bytes()).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_slice_of_its_own_does_not_shift_the_columns_of_a_task() {
        let row = b" R           slice  6860       622.203611   E         627.185314 S         5.000000       352.936851 \
                    6     120         0.000000         0.000000         0.000000        /\n";
        assert_eq!(read(NEW, row).as_deref(), Some("Waiting 'slice' 6860 6 120 '/'"));
    }

    #[test]
    fn a_header_without_what_is_needed_is_refused() {
        let reason = |header: &str| Layout::from_header(header.as_bytes()).unwrap_err();
        assert_eq!(reason(""), "the header has no column 'task'");
        assert_eq!(
            reason(" S  task   PID  switches  prio"),
            "the header has the column 'task' in an unknown place"
        );
        assert_eq!(reason(" S            task   TID  switches  prio"), "the header has no column 'PID'");
        assert_eq!(reason(" S            task   PID  prio"), "the header has no column 'switches'");
        assert_eq!(reason(" S            task   PID  switches"), "the header has no column 'prio'");
    }

    #[test]
    fn a_row_that_the_kernel_did_not_print_is_no_row() {
        for row in [
            &b""[..],
            b"\n",
            b" R             hog  1234      0.0        1    49",
            b" R             hog_ 1234      0.0        1    49\n",
            b" 7             hog  1234      0.0        1    49\n",
            b"xR             hog  1234      0.0        1    49\n",
            b" Rx            hog  1234      0.0        1    49\n",
            b" R             hog 1234      0.0        1    49\n",
            b" R             hog  12x4      0.0        1    49\n",
            b" R             hog  1234      0.0        1\n",
            b" R             hog  1234      0.0        -1    49\n",
            b" R             hog  1234      0.0        +1    49\n",
            b" R             hog  99999999999      0.0        1    49\n",
            b" R             hog  1234      /          1    49\n",
        ] {
            assert_eq!(read(MIDDLE, row), None, "{}", String::from_utf8_lossy(row));
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn on_this_kernel_a_row_is_a_line() {
        rig::as_root();
        let sources = crate::observe::sched_debug::Sources::find("/".as_ref()).unwrap();
        let text = std::fs::read(sources.text).unwrap();
        let text = String::from_utf8_lossy(&text).replace(char::REPLACEMENT_CHARACTER, "?");
        for table in text.split("\nrunnable tasks:\n").skip(1) {
            let (header, table) = table.split_once('\n').unwrap();
            let (_, mut rows) = table.split_once('\n').unwrap();
            let layout = Layout::from_header(header.as_bytes()).unwrap();
            while !rows.starts_with('\n') {
                let (row, after) = layout.split_row(rows.as_bytes()).unwrap();
                let numbers = layout.numbers(&row).unwrap();
                let (line, rest) = rows.split_once('\n').unwrap();
                // A task may have put a newline in its name.
                if !row.name.contains(&b'\n') {
                    assert_eq!(after, rest.as_bytes());
                    assert!(line.contains(&format!(" {} ", numbers.pid)), "{line}");
                }
                rows = &rows[rows.len() - after.len()..];
            }
        }
    }
}
