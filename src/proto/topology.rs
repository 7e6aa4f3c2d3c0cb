//! The overlay as its peers report it, for whoever wants to look at it.
//!
//! What must stay true: a link counts only when both ends name it, so that no peer can attract
//! links by what it says; and nothing is decided by this graph (DESIGN.md, section 3).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::message::Addr;
use super::registry::{Registry, Status};

/// A peer of the graph, and its number of links.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Node {
    /// Address at which it listens.
    pub address: Addr,
    /// Links that both ends report.
    pub degree: usize,
    /// What became of it: alive, left or dead.
    pub status: Status,
}

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Topology {
    /// All peers that the registry knows, by address; those that are gone have no links.
    pub nodes: Vec<Node>,
    /// Each link once, with the lower address first, in order.
    pub links: Vec<(Addr, Addr)>,
}

impl Topology {
    /// The graph that follows from what members report of their neighbours.
    pub fn of<'a>(registry: &Registry, neighbours_of: impl Fn(&Addr) -> &'a [Addr]) -> Self {
        let mut degrees: BTreeMap<Addr, usize> = BTreeMap::new();
        let mut links = Vec::new();
        for (peer, _) in registry.members() {
            for other in neighbours_of(peer) {
                let member = registry.alive(other).is_some();
                if peer < other && member && neighbours_of(other).contains(peer) {
                    links.push((*peer, *other));
                }
            }
        }
        // A peer may name a neighbour many times; that is one link, and raises nobody's degree.
        links.sort_unstable();
        links.dedup();
        for end in links.iter().flat_map(|(one, other)| [one, other]) {
            *degrees.entry(*end).or_default() += 1;
        }
        let node = |(address, record): (&Addr, &super::registry::Record)| Node {
            address: *address,
            degree: degrees.get(address).copied().unwrap_or(0),
            status: record.status,
        };
        Self { nodes: registry.iter().map(node).collect(), links }
    }

    /// The graph as JSON: `{"nodes": [{"address", "degree", "status"}], "links": [[a, b]]}`.
    pub fn to_json(&self) -> String {
        // The graph holds only addresses, numbers and words, so writing it as JSON cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The members and their links in the language of Graphviz.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("graph rumormill {\n");
        for node in self.nodes.iter().filter(|node| node.status == Status::Alive) {
            let _ = writeln!(dot, "  \"{}\" [degree={}];", node.address, node.degree);
        }
        for (one, other) in &self.links {
            let _ = writeln!(dot, "  \"{one}\" -- \"{other}\";");
        }
        dot.push_str("}\n");
        dot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::registry::Record;

    fn addr(port: u16) -> Addr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn a_link_counts_when_both_ends_name_it() {
        let mut registry = Registry::new();
        for (port, status) in
            [(1, Status::Alive), (2, Status::Alive), (3, Status::Alive), (4, Status::Dead)]
        {
            let record = Record::plain(1, status, 0, vec![0]);
            registry.merge(addr(port), record);
        }
        let said: BTreeMap<Addr, Vec<Addr>> = [
            (addr(1), vec![addr(2), addr(3), addr(4), addr(9), addr(2), addr(1)]),
            (addr(2), vec![addr(1)]),
            (addr(3), vec![addr(2)]),
            (addr(4), vec![addr(1)]),
        ]
        .into();
        let topology = Topology::of(&registry, |peer| said.get(peer).map_or(&[], Vec::as_slice));
        assert_eq!(topology.links, [(addr(1), addr(2))]);
        let degrees: Vec<usize> = topology.nodes.iter().map(|node| node.degree).collect();
        assert_eq!(degrees, [1, 1, 0, 0]);
        assert_eq!(
            topology.to_dot(),
            "graph rumormill {\n  \"127.0.0.1:1\" [degree=1];\n  \"127.0.0.1:2\" [degree=1];\n  \
             \"127.0.0.1:3\" [degree=0];\n  \"127.0.0.1:1\" -- \"127.0.0.1:2\";\n}\n"
        );
        let json = topology.to_json();
        assert!(
            json.starts_with(r#"{"nodes":[{"address":"127.0.0.1:1","degree":1,"status":"alive"}"#)
        );
        assert!(json.ends_with(r#""links":[["127.0.0.1:1","127.0.0.1:2"]]}"#));
    }
}
