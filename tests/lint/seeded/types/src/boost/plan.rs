pub struct Allowed;
pub(super) enum Kind<T> {
    None(T),
}
pub trait Sink {
    type Output;
}
struct Once;
type Twice = u8;
