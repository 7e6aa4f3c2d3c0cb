//! Network namespaces: each process on a host of its own, on a bridge in another one where the clients
//! are. A cut is a pair of blackhole routes, so that the clients still reach both sides. Making them
//! takes root.

use std::fs::File;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

/// Several tests of one process may each have some.
static MADE: AtomicU32 = AtomicU32::new(0);

fn ip(args: &str) -> bool {
    let done = Command::new("ip").args(args.split(' ')).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// Some hosts, and where their clients are.
pub struct Spaces {
    hosts: Vec<String>,
    hub: String,
}

impl Spaces {
    /// So many hosts; none if this machine does not let us.
    pub fn make(count: u8) -> Option<Self> {
        let set = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |what: &str| format!("rumormill-{}-{set}-{what}", std::process::id());
        let made = Self {
            hosts: (1..=count).map(|place| name(&place.to_string())).collect(),
            hub: name("hub"),
        };
        let hub = &made.hub;
        // What is dropped is removed, as far as it was made.
        let mut done = ip(&format!("netns add {hub}"))
            && ip(&format!("-n {hub} link add bridge type bridge"))
            && ip(&format!("-n {hub} addr add 10.77.0.254/24 dev bridge"))
            && ip(&format!("-n {hub} link set bridge up"))
            && ip(&format!("-n {hub} link set lo up"));
        for (place, space) in (1..).zip(&made.hosts) {
            done = done
                && ip(&format!("netns add {space}"))
                && ip(&format!(
                    "-n {hub} link add v{place} type veth peer name eth0 netns {space}"
                ))
                && ip(&format!("-n {hub} link set v{place} master bridge up"))
                && ip(&format!("-n {space} addr add {}/24 dev eth0", Self::host(place - 1)))
                && ip(&format!("-n {space} link set eth0 up"))
                && ip(&format!("-n {space} link set lo up"));
        }
        done.then_some(made)
    }

    /// The address of a host.
    pub fn host(place: usize) -> IpAddr {
        let last = u8::try_from(place + 1).unwrap();
        [10, 77, 0, last].into()
    }

    /// Where the clients are.
    pub const fn clients() -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 254))
    }

    /// A program on a host.
    pub fn command(&self, place: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.hosts[place], program]);
        command
    }

    /// What makes the thread that runs it one of the clients'.
    pub fn entry(&self) -> impl Fn() + Send + 'static {
        let hub = self.hub.clone();
        move || {
            let space = File::open(format!("/run/netns/{hub}")).unwrap();
            setns(space, CloneFlags::CLONE_NEWNET).unwrap();
        }
    }

    /// Cuts two hosts from each other, or lets them meet again.
    pub fn cut(&self, one: usize, other: usize, apart: bool) {
        let what = if apart { "add" } else { "del" };
        let route = |from: usize, to: usize| {
            ip(&format!("-n {} route {what} blackhole {}/32", self.hosts[from], Self::host(to)))
        };
        assert!(route(one, other) & route(other, one), "routes can be set where hosts were made");
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        self.hosts.iter().chain([&self.hub]).for_each(|space| {
            ip(&format!("netns del {space}"));
        });
    }
}
