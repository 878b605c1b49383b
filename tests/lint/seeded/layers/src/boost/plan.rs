use super::parts;
use crate::task::Task;
