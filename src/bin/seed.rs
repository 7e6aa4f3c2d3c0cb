//! The program `seed`: hands its arguments to the library, and returns the exit code.
fn main() -> std::process::ExitCode {
    rumormill::cli::seed_main()
}
