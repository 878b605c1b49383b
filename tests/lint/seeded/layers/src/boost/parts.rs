use super::plan;
use super::super::task;
