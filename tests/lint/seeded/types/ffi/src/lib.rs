pub struct Output;
#[cfg(test)]
struct Helper;
pub unsafe trait Sink {}
// struct Output;
