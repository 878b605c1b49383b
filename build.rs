//! Compiles the BPF programs in bpf/ into the objects that the binary carries.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const OBJECTS: [&str; 4] = ["stalld", "stallstat", "empty", "slice"];

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
    let libbpf = env::var("DEP_BPF_INCLUDE").map_err(|_| "libbpf-sys tells no include directory")?;
    let arch = match env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default().as_str() {
        "x86_64" | "x86" => "x86",
        "aarch64" => "arm64",
        "arm" => "arm",
        "s390x" => "s390",
        "riscv64" => "riscv",
        "powerpc64" => "powerpc",
        "loongarch64" => "loongarch",
        other => return Err(format!("no BPF for {other}: build with --no-default-features")),
    };
    let endian = match env::var("CARGO_CFG_TARGET_ENDIAN").as_deref() {
        Ok("big") => "bpfeb",
        _ => "bpfel",
    };
    for name in OBJECTS {
        compile(name, &out, &libbpf, arch, endian)?;
    }
    Ok(())
}

fn compile(name: &str, out: &Path, libbpf: &str, arch: &str, endian: &str) -> Result<(), String> {
    let object = out.join(format!("{name}.bpf.o"));
    let clang = tool("CLANG", "clang");
    run(
        Command::new(&clang)
            .args([
                "-target",
                endian,
                "-mcpu=v3",
                "-g",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Wno-unused-parameter",
                "-Werror",
                "-c",
            ])
            // The build directory must not end up in the object.
            .arg("-fdebug-compilation-dir=.")
            .arg(format!("-D__TARGET_ARCH_{arch}"))
            .arg(format!("-I{libbpf}"))
            .arg(format!("bpf/{name}.bpf.c"))
            .arg("-o")
            .arg(&object),
        &clang,
        "clang",
    )?;
    // Drops DWARF and leaves BTF.
    let strip = tool("LLVM_STRIP", "llvm-strip");
    run(Command::new(&strip).arg("-g").arg(&object), &strip, "llvm")?;
    fs::metadata(&object).map_err(|e| format!("{}: {e}", object.display()))?;
    Ok(())
}

fn tool(variable: &str, default: &str) -> String {
    env::var(variable).unwrap_or_else(|_| default.to_string())
}

fn run(command: &mut Command, tool: &str, package: &str) -> Result<(), String> {
    let output = command.output().map_err(|e| {
        format!(
            "cannot run {tool} ({e}): install the package '{package}' (apt install {package}, dnf install \
             {package}), or build without BPF by --no-default-features"
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{tool} failed:\n{}", String::from_utf8_lossy(&output.stderr)))
}

/// Rust's view of what the BPF programs and the programs around them share, from the headers of the
/// former.
#[cfg(feature = "regen")]
fn regenerate() {
    let stalld = bindgen::Builder::default()
        .allowlist_type("record|queue|wait|settings|losses")
        .allowlist_var("RECORD_.*|OWNER_.*|RUNNABLE_UNKNOWN");
    write_bindings(stalld, "bpf/records.h", "src/observe/bpf/records.rs");
    let stallstat = bindgen::Builder::default()
        .allowlist_type("entry|place|turn|settings|losses|histogram")
        // Too long for what std derives.
        .no_default("histogram")
        .allowlist_var("COUNT_.*|VERDICT_.*|NAME_.*|SLOTS|SLOT_SHIFT|EVENTS");
    write_bindings(stallstat, "bpf/stallstat.h", "src/stat/records.rs");
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
