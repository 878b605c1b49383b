fn main() -> std::process::ExitCode {
    stalld::stat::main()
}
