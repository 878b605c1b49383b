//! Compiles a BPF program, for the build scripts of stalld and of its tests.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

/// Compiles `source` to the ELF object `object`. `headers` is the directory bpf/ of stalld, and
/// `libbpf` that of libbpf's headers.
pub(crate) fn compile(source: &Path, object: &Path, headers: &Path, libbpf: &Path) -> Result<(), String> {
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
    let clang = tool("CLANG", "clang");
    run(
        Command::new(&clang)
            .args(["-target", endian, "-mcpu=v3", "-g", "-O2", "-c"])
            .args(["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"])
            // The object must not contain the path of the build directory.
            .arg("-fdebug-compilation-dir=.")
            .arg(format!("-D__TARGET_ARCH_{arch}"))
            .arg("-I")
            .arg(headers)
            .arg("-I")
            .arg(libbpf)
            .arg(source)
            .arg("-o")
            .arg(object),
        &clang,
        "clang",
    )?;
    // Removes DWARF and keeps BTF.
    let strip = tool("LLVM_STRIP", "llvm-strip");
    run(Command::new(&strip).arg("-g").arg(object), &strip, "llvm")?;
    fs::metadata(object).map_err(|e| format!("{}: {e}", object.display()))?;
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
