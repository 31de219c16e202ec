//! A headless player: the other end of the protocol, for bots, load tests, the simulator and checkers.
//!
//! Cheap enough that one process runs a thousand: frames are decoded by hand into a table by alias ([`PlayerView`]), and
//! nothing runs in the background. What it does by itself: it numbers inputs, keeps them until they are applied, takes each reply
//! once and acknowledges it, and knows what [`PlayerClient::resume_key`] needs. When to send what, and when to come back after
//! a lost socket, is the caller's.

mod decode;
mod view;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::Bytes;
use futures::{Sink, Stream};
use marchland_proto::client::{
    ClientMessage, Commands, Goodbye, Hello, Input, Ping, Refused, Resume, SignIn, Welcome, client_message::Body, hello::How,
    input::What,
};
use marchland_proto::codes::Code;
use marchland_proto::net::{Transport, Tune};
use marchland_types::limits::{INPUTS_PER_MESSAGE_MAX, UNACKED_COMMANDS_MAX};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};

use crate::SUBPROTOCOL;
use crate::player_stream::PlayerStream;

pub use decode::BadFrame;
pub use view::{Fault, FrameInfo, Other, PlayerView};

/// Allocated for every connection; frames are a few hundred bytes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// How to reach an edge.
#[derive(Clone, Default)]
pub struct ClientOptions {
    /// For `wss`: how to check the server's certificate, and the name that it must carry.
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// Free text for the server's logs.
    pub client_name: String,
}

/// How a player proves who it is.
#[derive(Clone, Debug, PartialEq)]
pub enum Login {
    /// With a token; begins a new session epoch.
    SignIn {
        /// Proves the account.
        token: String,
        /// The account's character.
        character_name: String,
    },
    /// With the secret of a session that goes on.
    Resume(ResumeKey),
}

/// What it takes to go on with a session over another connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ResumeKey {
    /// Whose.
    pub character_id: u64,
    /// Of which session.
    pub session_epoch: u64,
    /// From the `Welcome` that answered the sign-in.
    pub resume_secret: Bytes,
    /// The next one: count it up before every further attempt.
    pub attach_number: u32,
    /// Newest reply that was received.
    pub last_reply_seq: u64,
    /// Inputs that are not known to be applied.
    pub unacked: Vec<Input>,
}

/// Why a player is not connected, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server said why.
    #[error("refused with code {} ({:?}): {}", .0.code, Code::from_u32(.0.code), .0.reason)]
    Refused(Refused),
    /// The socket ended, or could not be made.
    #[error("socket lost: {0}")]
    Lost(String),
    /// The server sent what it must not.
    #[error("protocol: {0}")]
    Protocol(String),
    /// As many inputs are on their way as may be.
    #[error("{UNACKED_COMMANDS_MAX} inputs are on their way")]
    Window,
}

impl ClientError {
    /// The refusal's code, if it is one.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused(refused) => Code::from_u32(refused.code),
            Self::Lost(_) | Self::Protocol(_) | Self::Window => None,
        }
    }

    /// WebSocket address of the edge that the server named instead of itself.
    #[must_use]
    pub fn other_edge(&self) -> Option<&str> {
        match self {
            Self::Refused(refused) => Some(refused.other_edge.as_str()).filter(|edge| !edge.is_empty()),
            Self::Lost(_) | Self::Protocol(_) | Self::Window => None,
        }
    }
}

/// What came from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A tick; [`PlayerClient::view`] shows it.
    Frame(FrameInfo),
    /// The answer to a ping.
    Pong {
        /// What was sent with it.
        client_ms: u64,
        /// The edge's clock.
        server_ms: u64,
    },
}

/// A connected player.
pub struct PlayerClient<S> {
    ws: WebSocketStream<PlayerStream<S>>,
    /// The world as this player was shown it.
    pub view: PlayerView,
    welcome: Welcome,
    secret: Bytes,
    next_seq: u64,
    unacked: VecDeque<Input>,
    unsent: Vec<Input>,
    acked_reply_seq: u64,
}

impl<S: AsyncRead + AsyncWrite + Tune + Unpin> PlayerClient<S> {
    /// Connects to `host:port` and joins. Inputs of a resumed session that the server does not have are sent again by the next
    /// [`PlayerClient::flush`].
    pub async fn connect<T: Transport<Stream = S>>(
        transport: &T,
        address: &str,
        options: &ClientOptions,
        login: &Login,
    ) -> Result<Self, ClientError> {
        let lost = |e: &dyn std::fmt::Display| ClientError::Lost(e.to_string());
        let stream = transport.connect(address).await.map_err(|e| lost(&e))?;
        stream.tune_for_cluster().map_err(|e| lost(&e))?;
        let (stream, scheme) = match &options.tls {
            None => (PlayerStream::Plain(stream), "ws"),
            Some((connector, name)) => {
                let tls = connector.connect(name.clone(), stream).await.map_err(|e| lost(&e))?;
                (PlayerStream::Tls(Box::new(tls.into())), "wss")
            }
        };
        let mut request = format!("{scheme}://{address}/").into_client_request().map_err(|e| lost(&e))?;
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES).write_buffer_size(0);
        let (ws, _) = tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await.map_err(|e| lost(&e))?;
        let mut client = Self {
            ws,
            view: PlayerView::default(),
            welcome: Welcome::default(),
            secret: Bytes::new(),
            next_seq: 1,
            unacked: VecDeque::new(),
            unsent: Vec::new(),
            acked_reply_seq: 0,
        };
        let how = match login {
            Login::SignIn { token, character_name } => {
                How::SignIn(SignIn { token: token.clone(), character_name: character_name.clone() })
            }
            Login::Resume(key) => How::Resume(Resume {
                character_id: key.character_id,
                session_epoch: key.session_epoch,
                resume_secret: key.resume_secret.clone(),
                attach_number: key.attach_number,
                last_reply_seq: key.last_reply_seq,
            }),
        };
        let hello = Hello { protocol_version: 1, how: Some(how), client_name: options.client_name.clone() };
        client.send(Body::Hello(hello)).await?;
        client.welcome = client.wait_for_welcome().await?;
        client.next_seq = client.welcome.next_seq;
        client.secret = client.welcome.resume_secret.clone();
        if let Login::Resume(key) = login {
            client.secret = key.resume_secret.clone();
            client.view.replies_known(key.last_reply_seq);
            client.acked_reply_seq = key.last_reply_seq;
            client.unsent = key.unacked.iter().filter(|input| input.seq >= client.next_seq).cloned().collect();
            client.unacked.extend(client.unsent.iter().cloned());
            if let Some(last) = client.unacked.back() {
                client.next_seq = last.seq + 1;
            }
        }
        Ok(client)
    }

    /// What the server said at the beginning.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// How to go on with this session over another connection.
    #[must_use]
    pub fn resume_key(&self) -> ResumeKey {
        ResumeKey {
            character_id: self.welcome.character_id,
            session_epoch: self.welcome.session_epoch,
            resume_secret: self.secret.clone(),
            attach_number: self.welcome.attach_number + 1,
            last_reply_seq: self.view.last_reply_seq(),
            unacked: self.unacked.iter().cloned().collect(),
        }
    }

    /// Number that the next input will get.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Inputs that are not known to be applied.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Takes an input for the next [`PlayerClient::flush`] and returns its number.
    pub fn input(&mut self, what: What, duration_ms: u32) -> Result<u64, ClientError> {
        if self.unacked.len() >= UNACKED_COMMANDS_MAX {
            return Err(ClientError::Window);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let input = Input { seq, client_tick: self.view.tick(), duration_ms, what: Some(what) };
        self.unacked.push_back(input.clone());
        self.unsent.push(input);
        Ok(seq)
    }

    /// Sends the inputs that were taken, and acknowledges replies. Nothing is sent if there is neither.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        let acked = self.view.last_reply_seq();
        while !self.unsent.is_empty() || acked > self.acked_reply_seq {
            let rest = self.unsent.split_off(self.unsent.len().min(INPUTS_PER_MESSAGE_MAX));
            let inputs = std::mem::replace(&mut self.unsent, rest);
            self.acked_reply_seq = acked;
            self.send(Body::Commands(Commands { inputs, acked_reply_seq: acked })).await?;
        }
        Ok(())
    }

    /// Asks for a `Pong`.
    pub async fn ping(&mut self, client_ms: u64) -> Result<(), ClientError> {
        self.send(Body::Ping(Ping { client_ms })).await
    }

    /// Leaves the world. Go on with [`PlayerClient::next`] until it is refused with [`Code::Goodbye`].
    pub async fn goodbye(&mut self) -> Result<(), ClientError> {
        self.send(Body::Goodbye(Goodbye {})).await
    }

    /// The next thing that the server says. Cancel-safe.
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            let bytes = self.receive().await?;
            match decode::server_message(&bytes)? {
                decode::Said::Frame(frame) => {
                    let info = self.view.apply(frame)?;
                    let applied = self.view.applied_seq();
                    while self.unacked.front().is_some_and(|input| input.seq <= applied) {
                        self.unacked.pop_front();
                    }
                    return Ok(Heard::Frame(info));
                }
                decode::Said::Pong(pong) => return Ok(Heard::Pong { client_ms: pong.client_ms, server_ms: pong.server_ms }),
                decode::Said::Refused(refused) => return Err(ClientError::Refused(refused)),
                decode::Said::Welcome(_) => return Err(ClientError::Protocol("a second Welcome".into())),
                decode::Said::Unknown => {}
            }
        }
    }

    /// The byte stream below, for tests that change its options.
    pub fn stream(&self) -> Option<&S> {
        match self.ws.get_ref() {
            PlayerStream::Plain(stream) => Some(stream),
            PlayerStream::Tls(_) => None,
        }
    }

    async fn wait_for_welcome(&mut self) -> Result<Welcome, ClientError> {
        let bytes = self.receive().await?;
        match decode::server_message(&bytes)? {
            decode::Said::Welcome(welcome) => Ok(welcome),
            decode::Said::Refused(refused) => Err(ClientError::Refused(refused)),
            decode::Said::Frame(_) | decode::Said::Pong(_) | decode::Said::Unknown => {
                Err(ClientError::Protocol("something else before Welcome".into()))
            }
        }
    }

    async fn receive(&mut self) -> Result<Bytes, ClientError> {
        loop {
            match poll_fn(|cx| Pin::new(&mut self.ws).poll_next(cx)).await {
                Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => return Err(ClientError::Protocol("not binary".into())),
                Some(Ok(Message::Close(frame))) => return Err(ClientError::Lost(format!("closed: {frame:?}"))),
                Some(Err(error)) => return Err(ClientError::Lost(error.to_string())),
                None => return Err(ClientError::Lost(io::Error::from(io::ErrorKind::UnexpectedEof).to_string())),
            }
        }
    }

    async fn send(&mut self, body: Body) -> Result<(), ClientError> {
        let lost = |e| ClientError::Lost(format!("{e}"));
        let bytes: Bytes = ClientMessage { body: Some(body) }.encode_to_vec().into();
        poll_fn(|cx| Pin::new(&mut self.ws).poll_ready(cx)).await.map_err(lost)?;
        Pin::new(&mut self.ws).start_send(Message::Binary(bytes)).map_err(lost)?;
        poll_fn(|cx| Pin::new(&mut self.ws).poll_flush(cx)).await.map_err(lost)
    }
}
