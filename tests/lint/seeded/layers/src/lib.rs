pub mod boost;
mod json;
pub mod task;
pub mod unnamed;
