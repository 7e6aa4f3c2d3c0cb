//! Requests to the API of a peer: methods, paths, queries, bodies and the metadata in them.
#![no_main]

use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use libfuzzer_sys::fuzz_target;
use rumormill::{EventLog, Membership, Network, Peer, PeerConfig, Severity, bind, http};
use tokio::runtime::Runtime;
use tower::ServiceExt;

struct Api {
    runtime: Runtime,
    routes: Router,
    _peer: Peer,
}

static API: LazyLock<Api> = LazyLock::new(|| {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (routes, peer) = runtime.block_on(async {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let me = listener.local_addr().expect("an address");
        let config = PeerConfig::new(me, Network::without_seeds("fuzz"))
            .membership(Membership::Fixed(vec![me]))
            .gossip_count(0)
            .causal_wait(std::time::Duration::ZERO);
        let peer = Peer::start(listener, config).expect("a peer");
        (http::peer_routes(peer.handle(), EventLog::new(Severity::Error)), peer)
    });
    Api { runtime, routes, _peer: peer }
});

fuzz_target!(|data: &[u8]| {
    // A line with method and path, then the body.
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let line = String::from_utf8_lossy(&data[..end]);
    let body = data.get(end + 1..).unwrap_or_default().to_vec();
    let Some((method, uri)) = line.split_once(' ') else { return };
    let request = Request::builder().method(method).uri(uri).body(Body::from(body));
    let Ok(request) = request else { return };
    let api = &*API;
    let response = api.runtime.block_on(api.routes.clone().oneshot(request)).expect("infallible");
    let (status, path) = (response.status(), uri.split('?').next().unwrap_or_default());
    assert!(status.as_u16() != 500, "{method} {path}: {status}");
});
