pub fn has_sixty_one_lines(a: u8) {
    let _ = 0;
    let _ = 1;
    let _ = 2;
    let _ = 3;
    let _ = 4;
    let _ = 5;
    let _ = 6;
    let _ = 7;
    let _ = 8;
    let _ = 9;
    let _ = 10;
    let _ = 11;
    let _ = 12;
    let _ = 13;
    let _ = 14;
    let _ = 15;
    let _ = 16;
    let _ = 17;
    let _ = 18;
    let _ = 19;
    let _ = 20;
    let _ = 21;
    let _ = 22;
    let _ = 23;
    let _ = 24;
    let _ = 25;
    let _ = 26;
    let _ = 27;
    let _ = 28;
    let _ = 29;
    let _ = 30;
    let _ = 31;
    let _ = 32;
    let _ = 33;
    let _ = 34;
    let _ = 35;
    let _ = 36;
    let _ = 37;
    let _ = 38;
    let _ = 39;
    let _ = 40;
    let _ = 41;
    let _ = 42;
    let _ = 43;
    let _ = 44;
    let _ = 45;
    let _ = 46;
    let _ = 47;
    let _ = 48;
    let _ = 49;
    let _ = 50;
    let _ = 51;
    let _ = 52;
    let _ = 53;
    let _ = 54;
    let _ = 55;
    let _ = 56;
    let _ = 57;
    let _ = 58;
}

impl Long {
    pub(crate) unsafe fn has_six_parameters<T: Fn(u8, u8) -> u8>(
        &mut self,
        a: u8,
        b: (u8, u8),
        c: [u8; 4],
        d: impl Fn(u8, u8) -> u8,
        e: T,
        f: u8,
    ) -> u8
    where
        T: Copy,
    {
        0
    }

    fn has_five(&self, a: u8, b: Option<(u8, u8)>, c: u8, d: &'static [u8], e: u8) -> u8 { 0 }
}

fn is_short() {
    let _ = 0;
}
