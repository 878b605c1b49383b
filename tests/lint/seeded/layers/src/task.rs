//! Imports one module of a higher layer, and one of no layer. This is none: crate::boost.

use crate::boost::parts::Part;
use crate::{boost::plan, json::Value as Json, task};
pub(crate) use crate::absent;
use super::*;

const TEXT: &str = "crate::boost and // crate::boost";

fn inline(a: crate::json::Value) -> Option<super::boost::Plan> {
    $crate::boost::look!(a)
}

mod tests {
    use super::*;

    fn calls() {
        super::super::json::value();
        super::inline();
        mycrate::boost::call();
    }
}

fn behind() -> super::json::Value {}
