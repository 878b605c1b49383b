use crate::{
    json::{self, Value},
    task::Task,
};
