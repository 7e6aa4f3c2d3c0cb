//! Accepts connections and serves them, within limits.
//!
//! What must stay true: the number of connections, the time for each head of a request, the time
//! for which a connection may be idle, and the time that a stop takes are all bounded.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::{Router, middleware};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answer::{OverLimit, no_such_path, with_whole_body, wrong_method};
use super::crowd::{Answered, Crowd, Place};
use super::gate::{Gate, guarded};
use super::stream::Client;
use crate::proto::limits::Limit;

/// A client that has begun a request has this long to send its head.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the head of a request that are gathered: a token and what proxies add take a few thousand.
/// If it is not whole by then it is 431, and the connection is closed; what the last read brings beyond
/// counts still.
const MAX_HEAD: usize = 64 << 10;
/// Header fields of a request at most: a browser behind proxies sends some thirty. More are 431.
const MAX_HEADERS: usize = 100;
/// A connection over which nothing is asked for so long is closed.
const IDLE_PATIENCE: Duration = Duration::from_secs(60);
/// Requests under way have this long to end when the node stops.
const LAST_REQUESTS: Duration = Duration::from_millis(300);
/// Pause before the next attempt to accept when the process is out of descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The place that connections come from.
#[derive(Debug)]
pub enum Source {
    /// A port of its own.
    Own(TcpListener),
    /// A port that a node listens on, too; the node passes on connections that are no links.
    Shared(mpsc::Receiver<TcpStream>),
}

impl Source {
    /// The next connection; none if no more will come. When descriptors run out, the connection
    /// that has asked nothing for longest is closed.
    async fn next(&mut self, crowd: &Crowd) -> Option<TcpStream> {
        match self {
            Source::Shared(streams) => streams.recv().await,
            Source::Own(listener) => loop {
                match listener.accept().await {
                    Ok((stream, _)) => return Some(stream),
                    Err(_) => {
                        crowd.make_room();
                        // The system cannot tell when a descriptor becomes free, so the loop tries
                        // again after a pause.
                        tokio::time::sleep(ACCEPT_AGAIN).await;
                    }
                }
            },
        }
    }
}

/// Serves whom `gate` lets in until `stop` is done, and then gives requests under way a moment to
/// end. `over_limit` is told what a limit keeps out.
pub async fn serve(
    mut source: Source,
    routes: Router,
    gate: Gate,
    over_limit: OverLimit,
    stop: impl Future<Output = ()>,
) {
    let routes = routes
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        // `with_whole_body` has limits of its own, which axum's lower one must not cut short.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(Arc::clone(&over_limit), with_whole_body))
        // The last layer is the first that a request meets.
        .layer(middleware::from_fn_with_state(Arc::new(gate), guarded));
    let crowd = Crowd::default();
    let stopping = CancellationToken::new();
    let connections = TaskTracker::new();
    let accept = async {
        loop {
            let Some(stream) = source.next(&crowd).await else { return };
            // If the client has hung up already, there is no address.
            let Ok(from) = stream.peer_addr() else { continue };
            let Some(place) = crowd.enter(from.ip()) else {
                over_limit(Limit::HttpConnections);
                continue;
            };
            connections.spawn(serve_one(stream, place, routes.clone(), stopping.clone()));
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
    stopping.cancel();
    connections.close();
    let _ = tokio::time::timeout(LAST_REQUESTS, connections.wait()).await;
}

async fn serve_one(stream: TcpStream, place: Place, routes: Router, stopping: CancellationToken) {
    let _ = stream.set_nodelay(true);
    let routes = TowerToHyperService::new(routes.into_service());
    let asked = place.clone();
    let service = service_fn(move |request| {
        let (asking, answer) = (asked.request(), routes.call(request));
        async move { answer.await.map(|answer| answer.map(|body| Answered::new(body, asking))) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    let connection =
        server.serve_connection(TokioIo::new(Client::new(stream, HEADER_PATIENCE)), service);
    tokio::pin!(connection);
    tokio::select! {
        // Errors of the connection concern nobody but the client.
        _ = connection.as_mut() => {}
        () = place.sent_away() => {}
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
