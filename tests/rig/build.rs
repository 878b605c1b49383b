//! Compiles the BPF programs that only tests and benches run, if stalld itself has some.

use std::env;
use std::path::{Path, PathBuf};

#[path = "../../bpf/compile.rs"]
mod compile;

fn main() {
    for path in ["empty.bpf.c", "slice.bpf.c", "../../bpf"] {
        println!("cargo:rerun-if-changed={path}");
    }
    println!("cargo:rustc-check-cfg=cfg(has_bpf)");
    let Some(libbpf) = env::var_os("DEP_STALLD_LIBBPF") else { return };
    println!("cargo:rustc-cfg=has_bpf");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for name in ["empty", "slice"] {
        let [source, object] = [format!("{name}.bpf.c").into(), out.join(format!("{name}.bpf.o"))];
        if let Err(reason) = compile::compile(&source, &object, Path::new("../../bpf"), Path::new(&libbpf)) {
            eprintln!("{reason}");
            std::process::exit(1);
        }
    }
}
