//! The program `peer`: arguments in, exit code out.
fn main() -> std::process::ExitCode {
    rumormill::cli::peer_main()
}
