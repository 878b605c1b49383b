use crate::task::Task;
