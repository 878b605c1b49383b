fn main() -> std::process::ExitCode {
    stalld::daemon::main()
}
