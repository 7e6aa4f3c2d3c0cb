//! The overlay as a graph.

use std::collections::HashMap;

use rumormill::proto::message::Addr;

/// Neighbours by node; nodes are places in the list.
pub type Graph = Vec<Vec<usize>>;

/// The overlay that these peers name. A link counts when both ends name it.
pub fn graph(peers: &[(Addr, Vec<Addr>)]) -> Graph {
    let places: HashMap<Addr, usize> =
        peers.iter().enumerate().map(|(place, (addr, _))| (*addr, place)).collect();
    let named: Vec<Vec<usize>> = peers
        .iter()
        .map(|(_, neighbours)| neighbours.iter().filter_map(|n| places.get(n).copied()).collect())
        .collect();
    let is_mutual = |a: usize, b: &usize| named[*b].contains(&a);
    (0..named.len())
        .map(|a| named[a].iter().copied().filter(|b| is_mutual(a, b)).collect())
        .collect()
}

/// Links that one end names and the other does not.
pub fn one_sided(peers: &[(Addr, Vec<Addr>)]) -> Vec<(Addr, Addr)> {
    let names: HashMap<Addr, &Vec<Addr>> = peers.iter().map(|(addr, n)| (*addr, n)).collect();
    let mut found = Vec::new();
    for (addr, neighbours) in peers {
        for neighbour in neighbours {
            if !names.get(neighbour).is_some_and(|theirs| theirs.contains(addr)) {
                found.push((*addr, *neighbour));
            }
        }
    }
    found
}

/// Sizes of the connected components, greatest first.
pub fn components(graph: &Graph) -> Vec<usize> {
    let mut seen = vec![false; graph.len()];
    let mut sizes = Vec::new();
    for start in 0..graph.len() {
        if seen[start] {
            continue;
        }
        seen[start] = true;
        let (mut size, mut queue) = (0, vec![start]);
        while let Some(node) = queue.pop() {
            size += 1;
            for next in &graph[node] {
                if !std::mem::replace(&mut seen[*next], true) {
                    queue.push(*next);
                }
            }
        }
        sizes.push(size);
    }
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes
}
