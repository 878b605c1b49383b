struct Allowed;
pub struct Kind;
impl Kind {
    fn local() {
        struct Inner;
    }
}
#[cfg(test)]
use Kind as Sink;

fn local() {
    struct Inner;
}
type Twice = u8;

#[cfg(test)]
mod tests {
struct Kind;
}
