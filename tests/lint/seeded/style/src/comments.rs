//! Somebody waits.
//!
//! Each user who waits, each `who`, and a look-up are no findings. A task waits that may
//! give
//! up. The comment says so, and looks
//! at it.

/// What begins here is a finding. Whoever waits, too: Of all tasks one waits.
/// "Who" is one more, and in a cell:
///
/// | task | What |
///
/// ```
/// // Nobody reads code.
/// ```
pub fn quoted() -> &'static str {
    "// somebody in a string"
}

/// The first half of a sentence, ...
pub const FIRST: u8 = 0;

/// ... and the second half.
pub const SECOND: u8 = 1; // for nobody

/* This comment of several lines
 * is not told at its end. */

// This line of a comment takes a hundred and one columns, which is one more than the rule of width w
// The next one, with an address, has room: https://example.org/a/long/path/that/can/not/be/wrapped/at/all
// This line takes exactly a hundred columns, because each of these letters takes one of them: äöüß.
