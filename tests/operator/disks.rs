//! Disks that are full, files that are damaged, and want of descriptors.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::programs::{PEER, Place, Running, free_address};

/// Whether this process may mount a small disk, in a namespace of its own.
fn may_mount() -> bool {
    let may = Command::new("unshare").args(["-m", "true"]).status().is_ok_and(|s| s.success());
    if !may {
        println!("skipped: no disk can be mounted here");
    }
    may
}

#[test]
fn a_seed_whose_disk_is_full_says_so_and_what_to_do() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("small")).unwrap();
    let line = format!(
        "exec unshare -m sh -c 'mount -t tmpfs -o size=3m tmpfs small && {}'",
        place.seed_line("--data-dir small")
    );
    let mut seed = Running(place.sh(&line).spawn().unwrap());
    let listening = format!("seed {} listening", place.seed);
    seed.until("it listens", || place.log().contains(&listening).then_some(()));
    // It has voted, and so is at work.
    let _first = place.start_peer(free_address(), "--ephemeral");
    // All that is left of the disk, byte by byte at its end.
    let small = format!("/proc/{}/root{}", seed.0.id(), place.path("small").display());
    let fill = format!(
        "for size in 4096 1; do dd if=/dev/zero bs=$size oflag=append conv=notrunc of={small}/full; done"
    );
    let _ = Command::new("sh").args(["-c", &fill]).output().unwrap();
    let peers: Vec<Running> = (0..3)
        .map(|_| {
            let at = free_address();
            let line = format!("exec {PEER} {} {} c --ephemeral", at.ip(), at.port());
            Running(place.sh(&line).spawn().unwrap())
        })
        .collect();
    let (code, said, _) = seed.end();
    drop(peers);
    assert_eq!(code, Some(1));
    for part in ["small", "No space left on device", "free some space", "start it again"] {
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
    assert_eq!(said.lines().count(), 1, "{said:?}");
    let log = place.log();
    let error = log.lines().find(|line| line.contains(" disk failed "));
    let error = error.unwrap_or_else(|| panic!("no line about the disk in {log}"));
    assert!(error.contains(" ERROR seed ") && error.contains("No space left"), "{error}");
}

#[test]
fn the_log_on_a_full_disk_ends_with_a_whole_line() {
    if !may_mount() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("small")).unwrap();
    let line = format!(
        "exec unshare -m sh -c 'mount -t tmpfs -o size=64k tmpfs small && {}'",
        place.seed_line("--ephemeral --log-file small/log")
    );
    let mut seed = Running(place.sh(&line).spawn().unwrap());
    let log = format!("/proc/{}/root{}/log", seed.0.id(), place.path("small").display());
    let read = || fs::read_to_string(&log).unwrap_or_default();
    seed.until("it listens", || read().contains(" listening ").then_some(()));
    // Each stranger is a line, until there is room for no more.
    for _ in 0..1_000 {
        let mut stream = TcpStream::connect(place.seed).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let text = read();
    assert!(text.len() > 60_000, "{} bytes: the disk is not full", text.len());
    assert!(text.ends_with('\n'), "it ends with {:?}", text.lines().last());
    for line in text.lines() {
        let time = line.split(' ').next().unwrap_or_default();
        assert!(chrono::DateTime::parse_from_rfc3339(time).is_ok(), "{line:?}");
        assert!(line.contains(&format!(" seed {} ", place.seed)), "{line:?}");
    }
    seed.signal(&["TERM"]);
    let (code, said, _) = seed.end();
    assert_eq!(code, Some(0), "the node goes on");
    assert!(said.contains("cannot write the log") && said.lines().count() == 1, "{said:?}");
}

#[test]
fn a_file_of_zero_bytes_is_refused_as_damaged() {
    let place = Place::new();
    let at = free_address();
    let peer = format!("exec {PEER} {} {} c", at.ip(), at.port());
    for (dir, name, line) in [
        (format!("seed-127.0.0.1-{}", place.seed.port()), "registry.redb", place.seed_line("")),
        (format!("peer-127.0.0.1-{}", at.port()), "store.redb", peer),
    ] {
        let dir = place.path("data").join(dir);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), "").unwrap();
        let (code, said, _) = Running(place.sh(&line).spawn().unwrap()).end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(name) && said.contains("damaged"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(fs::read(dir.join(name)).unwrap(), b"", "left as it was");
    }
}

#[test]
fn want_of_descriptors_is_told_once_a_minute() {
    let place = Place::new();
    let limited = format!("ulimit -n 24; {}", place.seed_line("--ephemeral"));
    let seed = Running(place.sh(&limited).spawn().unwrap());
    let listening = format!("seed {} listening", place.seed);
    seed.until("it listens", || place.log().contains(&listening).then_some(()));
    let crowd: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(place.seed).unwrap()).collect();
    let told = || place.log().lines().filter(|line| line.contains("accept failed")).count();
    seed.until("it says so", || (told() > 0).then_some(()));
    // What is tried is that time goes by.
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(told(), 1);
    drop(crowd);
}
