use super::super::parts;
use super::super::super::json::Value;
