use crate::handle;
use stalld::boost::Plan;
use stalld::json::Value;
