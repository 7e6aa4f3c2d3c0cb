//! The metrics of a node, as OpenMetrics text. No address is a label, because there would be a
//! series for every peer that ever was.
//!
//! All values are copied from the machine between two inputs, so they fit together.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::proto::limits::Limit;
use crate::proto::peer::PeerMachine;
use crate::proto::registry::Status;
use crate::proto::seed::SeedMachine;

/// A name, a help text, and the value.
type Metric = (&'static str, &'static str, u64);

/// The values of a node at one moment.
#[derive(Debug, Default)]
pub struct Sample {
    gauges: Vec<Metric>,
    counters: Vec<Metric>,
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The metrics of a peer.
pub fn of_peer(peer: &PeerMachine) -> Sample {
    let (gossip, store) = (peer.counters(), peer.replica().counters());
    Sample {
        gauges: gauges_of_peer(peer),
        counters: vec![
            ("gossip_received", "Messages accepted from others", gossip.received),
            ("gossip_duplicates", "Payloads that came again", gossip.duplicates),
            ("gossip_payloads_sent", "Payloads pushed or sent on request", gossip.payloads_sent),
            ("gossip_wanted", "Messages asked for", gossip.wants),
            ("gossip_refused", "Messages refused", gossip.refused),
            ("gossip_forged", "Messages that their origin has not signed", gossip.forged),
            ("sync_rounds", "Anti-entropy rounds begun", gossip.sync.rounds),
            ("sync_digests_matched", "Digests that matched", gossip.sync.matched),
            ("sync_messages_sent", "Messages sent because of anti-entropy", gossip.sync.sent),
            ("store_writes", "Writes of clients of this replica", store.written),
            ("store_writes_received", "Writes taken from others", store.received),
            ("store_writes_repaired", "Writes sent because contexts differed", store.repaired),
            ("store_writes_refused", "Writes refused", store.refused),
            ("store_snapshots", "Snapshots of the store taken over", store.snapshots),
            ("store_requests_behind", "Requests whose past did not come in time", store.behind),
        ],
    }
}

fn gauges_of_peer(peer: &PeerMachine) -> Vec<Metric> {
    let store = peer.replica().store();
    vec![
        ("registered", "Whether a quorum of seeds has accepted it", peer.is_registered().into()),
        ("members", "Members as this peer knows them", number(peer.members().size())),
        ("neighbours", "Links of the overlay", number(peer.neighbours().len())),
        ("messages", "Gossip messages held", number(peer.rumors().list().len())),
        (
            "clock_skew_seconds",
            "How far the clock that differs most is from this one's",
            peer.clocks().worst().unsigned_abs() / 1_000,
        ),
        ("store_keys", "Keys of the store", number(store.keys().count())),
        (
            "store_bytes",
            "Bytes of keys, values and metadata, to which clients may add up to --max-store-bytes",
            number(store.bytes()),
        ),
        (
            "store_context_replicas",
            "Lives of replicas that have written, which every comparison and many a write name",
            number(store.context().len()),
        ),
        (
            "store_context_bytes",
            "Bytes that naming them takes, of 524288 at most",
            number(store.context().size()),
        ),
        (
            "store_ended_lives",
            "Lives of replicas that are over, and named no more",
            number(store.seals().lives()),
        ),
    ]
}

/// The metrics of a seed.
pub fn of_seed(seed: &SeedMachine) -> Sample {
    let of = |status| seed.registry().iter().filter(|(_, record)| record.status == status).count();
    Sample {
        gauges: vec![
            ("voting", "Whether this seed votes", seed.is_voting().into()),
            ("quorum", "Whether a quorum of seeds is connected", seed.has_quorum().into()),
            ("members", "Members", number(seed.registry().size())),
            (
                "clock_skew_seconds",
                "How far the clock that differs most is from this one's",
                seed.clocks().worst().unsigned_abs() / 1_000,
            ),
            ("members_dead", "Records of members voted dead", number(of(Status::Dead))),
            ("members_left", "Records of members that left", number(of(Status::Left))),
        ],
        counters: Vec::new(),
    }
}

/// What was dropped because of a limit, with the limit's name as the label. All limits are there
/// from the start, so that an alert can tell zero from a name that is misspelt.
fn dropped(all: &[(Limit, u64)]) -> Family<[(&'static str, &'static str); 1], Counter> {
    let family = Family::<_, Counter>::default();
    for (limit, times) in all {
        family.get_or_create(&[("limit", limit.label())]).inc_by(*times);
    }
    family
}

/// Answers a scrape: a sample, and what was dropped because of a limit.
pub fn answer(sample: &Sample, drops: &[(Limit, u64)]) -> Response {
    let mut registry = Registry::with_prefix("rumormill");
    for (name, help, value) in &sample.gauges {
        registry.register(*name, *help, ConstGauge::new(*value));
    }
    for (name, help, value) in &sample.counters {
        registry.register(*name, *help, ConstCounter::new(*value));
    }
    registry.register("dropped", "What was dropped because of a limit, by limit", dropped(drops));
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = encode(&mut text, &registry);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
