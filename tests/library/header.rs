//! include/stalld.h is good C and good C++ by itself.

use rig::c::header_compiles_alone;

#[test]
fn the_header_compiles_alone_as_c() {
    // Some compilers warn that a header by itself is the main file; these two do not.
    for compiler in ["gcc", "clang"] {
        header_compiles_alone(compiler, "c-header", &["c99", "c11"]);
    }
}

#[test]
fn the_header_compiles_alone_as_cxx() {
    header_compiles_alone("clang", "c++-header", &["c++17"]);
}
