//! Ports that must be known in advance are reserved by a socket that is bound and never listens: the
//! system gives such a port to nobody, connections to it are refused as if nothing were there, and a
//! process may still listen on it, as often as the test wants.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

/// A loopback address that nobody else gets.
pub struct Reserved {
    pub addr: SocketAddr,
    _socket: TcpSocket,
}

impl Reserved {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self { addr: socket.local_addr().unwrap(), _socket: socket }
    }
}
