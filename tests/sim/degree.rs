//! The shape of a large overlay: a power law of degrees, in one piece, and in one piece again after
//! a fifth of it has died at once.

use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rumormill::proto::config::{Network, PeerConfig};

use super::chaos::for_all;
use super::fit::{Comparison, PowerLaw, compare, fit};
use super::large;
use super::node::NodeId;
use super::overlay::{self, Graph};
use super::world::World;

const PEERS: u16 = 1_000;
const RUNS: u64 = 20;
/// Runs in which a fifth of the peers dies.
const RUNS_WITH_DEATHS: u64 = 6;
/// Runs in which the power law must be significantly better.
const RUNS_WON: usize = 18;
const LINKS: usize = 3;
/// How far the fitted exponent may be from its target, or from what theory gives.
const TOLERANCE: f64 = 0.4;
/// After the last start, until the overlay is looked at.
const SETTLES: Duration = Duration::from_secs(5);
/// After the deaths, until the overlay must be in one piece again.
const HEALS_WITHIN: Duration = Duration::from_secs(10);

/// What one grown network looks like.
struct Shape {
    number: u64,
    law: PowerLaw,
    comparison: Comparison,
    /// Lowest degree but for the first three peers, and greatest of all.
    lowest: usize,
    greatest: usize,
    components: Vec<usize>,
    /// Components among the survivors, where a fifth died.
    after_deaths: Option<Vec<usize>>,
}

/// Default peers joining one after another. Nothing goes wrong.
fn grown(number: u64) -> (World, Vec<NodeId>) {
    let mut world = World::new(number);
    world.trace.off();
    let (_, peers) = large::join(&mut world, 3, PEERS);
    world.run_for(SETTLES);
    (world, peers)
}

/// The overlay of those peers that run.
fn overlay_of(world: &World, peers: &[NodeId]) -> Graph {
    overlay::graph(&world.neighbours_of(peers))
}

fn degrees(graph: &Graph) -> Vec<u64> {
    graph.iter().map(|neighbours| neighbours.len() as u64).collect()
}

fn look_at(number: u64) -> Shape {
    let (mut world, peers) = grown(number);
    let graph = overlay_of(&world, &peers);
    let sample = degrees(&graph);
    let law = fit(&sample).expect("a thousand peers have degrees to fit");
    let after_deaths = (number < RUNS_WITH_DEATHS).then(|| {
        let mut dying = peers.clone();
        dying.shuffle(&mut world.rng);
        dying.truncate(peers.len() / 5);
        for id in dying {
            world.crash(id);
        }
        world.run_for(HEALS_WITHIN);
        overlay::components(&overlay_of(&world, &peers))
    });
    Shape {
        number,
        law,
        comparison: compare(&sample, &law),
        lowest: graph.iter().skip(3).map(Vec::len).min().unwrap_or(0),
        greatest: graph.iter().map(Vec::len).max().unwrap_or(0),
        components: overlay::components(&graph),
        after_deaths,
    }
}

/// What a network would look like whose peers choose their neighbours uniformly.
fn chosen_uniformly(number: u64) -> Graph {
    let mut rng = SmallRng::seed_from_u64(number);
    let mut graph: Graph = Vec::new();
    for peer in 0..usize::from(PEERS) {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < LINKS.min(peer) {
            let neighbour = rng.random_range(0..peer);
            if !chosen.contains(&neighbour) {
                chosen.push(neighbour);
                graph[neighbour].push(peer);
            }
        }
        graph.push(chosen);
    }
    graph
}

/// What the static scale-free model gives for the degrees, drawn straight from its definition: each
/// newcomer draws ranks with P(r) ∝ r^-1/(γ-1) among those before it. The fit of that, at this
/// size, is what theory promises to the fit of the real thing.
fn chosen_by_rank(number: u64, exponent: f64, max_links: usize) -> Graph {
    let mut rng = SmallRng::seed_from_u64(number);
    let beta = 1.0 / (exponent - 1.0);
    let weights: Vec<f64> = (1..=PEERS).map(|rank| f64::from(rank).powf(-beta)).collect();
    let sums: Vec<f64> = weights
        .iter()
        .scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        })
        .collect();
    let mut graph: Graph = Vec::new();
    for peer in 0..usize::from(PEERS) {
        let mut chosen: Vec<usize> = Vec::new();
        while chosen.len() < LINKS.min(peer) {
            let drawn = rng.random::<f64>() * sums[peer - 1];
            let neighbour = sums.partition_point(|sum| *sum < drawn).min(peer - 1);
            if !chosen.contains(&neighbour) && graph[neighbour].len() < max_links {
                chosen.push(neighbour);
                graph[neighbour].push(peer);
            }
        }
        graph.push(chosen);
    }
    graph
}

/// Mean of the exponents fitted to such graphs.
fn theory(exponent: f64, max_links: usize) -> f64 {
    let fits =
        (0..RUNS).filter_map(|number| fit(&degrees(&chosen_by_rank(number, exponent, max_links))));
    fits.map(|law| law.alpha).sum::<f64>() / RUNS as f64
}

#[test]
fn degrees_follow_a_power_law_and_the_overlay_survives_the_death_of_a_fifth() {
    let began = Instant::now();
    let defaults = PeerConfig::new(large::peer_addr(0), Network::new("simulated", []));
    let (target, theory) = (
        defaults.topology.exponent,
        theory(defaults.topology.exponent, defaults.topology.max_links),
    );
    let shapes = for_all(0..RUNS, look_at);
    for shape in &shapes {
        println!(
            "{:>2}: exponent {:.2} from degree {} ({} peers, distance {:.3}), ratio {:.1} (p {:.4}), degrees {} to {}, {:?}, after deaths {:?}",
            shape.number,
            shape.law.alpha,
            shape.law.xmin,
            shape.law.tail,
            shape.law.distance,
            shape.comparison.ratio,
            shape.comparison.p,
            shape.lowest,
            shape.greatest,
            shape.components,
            shape.after_deaths,
        );
    }
    println!("target {target}, theory {theory:.2}, {:.1} s", began.elapsed().as_secs_f64());
    for Shape { number, law, lowest, components, after_deaths, .. } in &shapes {
        let off = (law.alpha - target).abs().min((law.alpha - theory).abs());
        assert!(off <= TOLERANCE, "run {number}: exponent {}, not {target} or {theory}", law.alpha);
        assert!(*lowest >= LINKS, "run {number}: a peer has only {lowest} links");
        assert_eq!(components.len(), 1, "run {number}: the overlay is in pieces: {components:?}");
        if let Some(pieces) = after_deaths {
            assert_eq!(pieces.len(), 1, "run {number}: after the deaths in pieces: {pieces:?}");
        }
    }
    let won = shapes.iter().filter(|shape| shape.comparison.power_law_wins()).count();
    assert!(won >= RUNS_WON, "a power law is significantly better in {won} of {RUNS} runs only");
}

#[test]
fn uniform_choice_gives_no_power_law() {
    let won = (0..RUNS)
        .filter(|number| {
            let sample = degrees(&chosen_uniformly(*number));
            fit(&sample).is_some_and(|law| compare(&sample, &law).power_law_wins())
        })
        .count();
    assert!(won < RUNS_WON / 4, "uniform choice passes for a power law in {won} of {RUNS} runs");
}
