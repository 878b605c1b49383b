//! Compiles the BPF programs in bpf/ into the objects that the binary carries.

use std::env;
use std::path::{Path, PathBuf};

#[path = "bpf/compile.rs"]
mod compile;

fn main() {
    println!("cargo:rerun-if-changed=bpf");
    println!("cargo:rerun-if-env-changed=CLANG");
    println!("cargo:rerun-if-env-changed=LLVM_STRIP");
    #[cfg(feature = "regen")]
    regenerate();
    if env::var_os("CARGO_FEATURE_BPF").is_some() {
        if let Err(reason) = compile_all() {
            eprintln!("{reason}");
            std::process::exit(1);
        }
    }
}

fn compile_all() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let libbpf = env::var("DEP_BPF_INCLUDE").map_err(|_| "libbpf-sys sets no include directory")?;
    // The build script of the tests' rig reads it as DEP_STALLD_LIBBPF.
    println!("cargo:libbpf={libbpf}");
    for name in ["stalld", "stallstat"] {
        let [source, object] = [format!("bpf/{name}.bpf.c").into(), out.join(format!("{name}.bpf.o"))];
        compile::compile(&source, &object, Path::new("bpf"), Path::new(&libbpf))?;
    }
    Ok(())
}

/// Rust's view of what the BPF programs and the programs around them share, from the headers of the
/// former.
#[cfg(feature = "regen")]
fn regenerate() {
    let stalld = bindgen::Builder::default()
        .allowlist_type("record|queue|wait|settings|losses")
        .allowlist_var("RECORD_.*|OWNER_.*|RUNNABLE_UNKNOWN|MAX_QUEUED|QUEUE_CHANGED|CPUS_PER_RUN");
    write_bindings(stalld, "bpf/records.h", "src/observe/bpf/records.rs");
    let stallstat = bindgen::Builder::default()
        .allowlist_type("cpu_info|entry|turn|settings|losses|histogram")
        // Too long for what std derives.
        .no_default("histogram")
        .allowlist_var("COUNT_.*|VERDICT_.*|NAME_.*|SLOTS|SLOT_SHIFT|EVENTS");
    write_bindings(stallstat, "bpf/stallstat.h", "src/stat/bpf_abi.rs");
}

#[cfg(feature = "regen")]
fn write_bindings(builder: bindgen::Builder, header: &str, file: &str) {
    // Else an edit of the file itself would stay.
    println!("cargo:rerun-if-changed={file}");
    let bindings = builder
        .header(header)
        .derive_default(true)
        .prepend_enum_name(false)
        .generate_comments(false)
        .raw_line(format!("//! The records that the BPF programs write, as {header} lays them out."))
        .raw_line("//! Made by `make regen`; do not edit.")
        .generate();
    let written = bindings
        .map_err(|e| e.to_string())
        .and_then(|bindings| bindings.write_to_file(file).map_err(|e| e.to_string()));
    if let Err(reason) = written {
        eprintln!("cannot make {file} from {header}: {reason}");
        std::process::exit(1);
    }
}
