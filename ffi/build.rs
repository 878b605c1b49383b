//! Regenerates include/stalld.h, with the feature `regen`.

fn main() {
    println!("cargo:rerun-if-changed=src/abi.rs");
    println!("cargo:rerun-if-changed=src/api.rs");
    println!("cargo:rerun-if-changed=cbindgen.toml");
    #[cfg(feature = "regen")]
    if let Err(reason) = regenerate() {
        eprintln!("cannot make include/stalld.h: {reason}");
        std::process::exit(1);
    }
}

#[cfg(feature = "regen")]
fn regenerate() -> Result<(), Box<dyn std::error::Error>> {
    // An edit of the file itself must cause a new run, too.
    println!("cargo:rerun-if-changed=../include/stalld.h");
    let header = cbindgen::Builder::new()
        .with_config(cbindgen::Config::from_file("cbindgen.toml")?)
        .with_src("src/abi.rs")
        .with_src("src/api.rs")
        .generate()?;
    header.write_to_file("../include/stalld.h");
    Ok(())
}
