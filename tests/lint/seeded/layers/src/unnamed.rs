use crate::boost;
