//! The wires between the machines: TCP as an application sees it, with a packet's time of arrival for a physics.
//!
//! What always holds: bytes of one direction of a connection arrive in order, each once; a link that is blocked holds its packets, as
//! TCP would send them again, and lets them go when it is open; a direction can be blocked alone, and then the other
//! one ends as well once a window is full, for nothing is acknowledged. A machine without power answers nobody; one whose process has
//! died resets. Every link draws its latencies from a stream of its own, so what happens on one moves nothing on another.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use tokio::io::ReadBuf;

use crate::interpose;
use crate::seed::Seed;

/// A packet within a machine takes this long.
const LOOPBACK_US: u64 = 20;
/// Bytes that a connection takes before the other end has read any, unless it was tuned.
const WINDOW_BYTES: usize = 1 << 20;
/// The same of a connection that was tuned for a player.
pub(crate) const PLAYER_WINDOW_BYTES: usize = 32 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;
/// Most of a packet; a larger write takes several polls.
const PACKET_BYTES: usize = 16 << 10;

/// A machine, by its position in the world.
pub(crate) type Host = usize;

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct End {
    connection: u64,
    /// Whether it is that of the machine that connected.
    client: bool,
}

impl End {
    fn other(self) -> Self {
        Self { client: !self.client, ..self }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Syn {
        port: u16,
        from: SocketAddr,
    },
    SynAck,
    Data(Bytes),
    /// This many bytes were read.
    Credit(usize),
    Fin,
    Reset,
}

#[derive(Debug)]
struct Packet {
    from: Host,
    to: Host,
    sent_us: u64,
    end: End,
    kind: Kind,
}

#[derive(Debug)]
struct Socket {
    host: Host,
    peer: Host,
    established: bool,
    inbox: VecDeque<Bytes>,
    eof: bool,
    reset: bool,
    fin_sent: bool,
    window_bytes: usize,
    /// Sent, and not known to be read.
    in_flight_bytes: usize,
    /// Read, and the sender does not know.
    uncredited_bytes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Socket {
    fn new(host: Host, peer: Host, established: bool) -> Self {
        Self {
            host,
            peer,
            established,
            inbox: VecDeque::new(),
            eof: false,
            reset: false,
            fin_sent: false,
            window_bytes: WINDOW_BYTES,
            in_flight_bytes: 0,
            uncredited_bytes: 0,
            reader: None,
            writer: None,
        }
    }
}

#[derive(Debug, Default)]
struct Backlog {
    waiting: VecDeque<(End, SocketAddr)>,
    acceptor: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    /// There is one, and a process above it.
    Running,
    /// There is one, and no process.
    Idle,
    /// The machine is dark.
    Dark,
}

/// Whose turn it is, and how its clock stood when it began.
struct Turn {
    began_us: u64,
    own: Duration,
}

struct State {
    seed: Seed,
    now_us: u64,
    turn: Option<Turn>,
    names: BTreeMap<String, Host>,
    kernels: Vec<Kernel>,
    ports: Vec<u16>,
    sockets: BTreeMap<End, Socket>,
    backlogs: BTreeMap<(Host, u16), Backlog>,
    on_the_way: BTreeMap<(u64, u64), Packet>,
    held: BTreeMap<(Host, Host), VecDeque<Packet>>,
    /// When the last packet to an end arrives: none overtakes it.
    newest: BTreeMap<End, u64>,
    blocks: BTreeMap<(Host, Host), u32>,
    latency_min: Duration,
    latency_max: Duration,
    slowed: Vec<(Option<Host>, Duration)>,
    chances: BTreeMap<(Host, Host), Pcg64Mcg>,
    next_connection: u64,
    next_packet: u64,
}

/// What is to be woken and dropped when the lock is free again: either may come back here.
#[derive(Default)]
struct After {
    wake: Vec<Waker>,
    drop: Vec<Socket>,
}

impl After {
    fn run(self) {
        drop(self.drop);
        self.wake.into_iter().for_each(Waker::wake);
    }
}

/// The wires. Clones are the same.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Mutex<State>>);

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wire")
    }
}

fn reset() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn address_of(host: Host, port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 168, 0, host as u8 + 1)), port)
}

/// Puts a waker where another may be, which is handed back to be dropped outside the lock.
fn put(slot: &mut Option<Waker>, cx: &Context<'_>) -> Option<Waker> {
    if slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) { None } else { slot.replace(cx.waker().clone()) }
}

impl Wire {
    pub(crate) fn new(seed: Seed, latency_min: Duration, latency_max: Duration) -> Self {
        Self(Arc::new(Mutex::new(State {
            seed,
            now_us: 0,
            turn: None,
            names: BTreeMap::new(),
            kernels: Vec::new(),
            ports: Vec::new(),
            sockets: BTreeMap::new(),
            backlogs: BTreeMap::new(),
            on_the_way: BTreeMap::new(),
            held: BTreeMap::new(),
            newest: BTreeMap::new(),
            blocks: BTreeMap::new(),
            latency_min,
            latency_max,
            slowed: Vec::new(),
            chances: BTreeMap::new(),
            next_connection: 0,
            next_packet: 0,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a machine, which is the next in order.
    pub(crate) fn add(&self, name: &str) {
        let mut state = self.state();
        let host = state.kernels.len();
        state.names.insert(name.to_owned(), host);
        state.kernels.push(Kernel::Idle);
        state.ports.push(49_152);
    }

    /// Delivers what has arrived until now.
    pub(crate) fn deliver(&self, now: Duration) {
        let mut after = After::default();
        {
            let mut state = self.state();
            state.now_us = now.as_micros() as u64;
            while let Some(entry) = state.on_the_way.first_entry()
                && entry.key().0 <= now.as_micros() as u64
            {
                let packet = entry.remove();
                state.arrive(packet, &mut after);
            }
        }
        after.run();
    }

    /// A machine runs from here on: what it sends leaves at its own time. Call it within its runtime.
    pub(crate) fn turn_begins(&self, now: Duration) {
        let own = interpose::now();
        let mut state = self.state();
        state.turn = Some(Turn { began_us: now.as_micros() as u64, own });
    }

    pub(crate) fn turn_ends(&self) {
        self.state().turn = None;
    }

    /// A process runs on this machine.
    pub(crate) fn process_starts(&self, host: Host) {
        let mut state = self.state();
        state.kernels[host] = Kernel::Running;
        state.release_all();
    }

    /// A machine's process has ended: its connections are reset. Without power nothing is sent, ever again.
    pub(crate) fn process_ends(&self, host: Host, dark: bool) {
        let mut after = After::default();
        {
            let mut state = self.state();
            state.kernels[host] = if dark { Kernel::Dark } else { Kernel::Idle };
            let ends: Vec<End> = state.sockets.iter().filter(|(_, s)| s.host == host).map(|(end, _)| *end).collect();
            for end in ends {
                let Some(socket) = state.sockets.remove(&end) else { continue };
                if !dark && !socket.reset {
                    state.send(host, socket.peer, end.other(), Kind::Reset);
                }
                after.drop.push(socket);
            }
            let listened: Vec<_> = state.backlogs.keys().copied().filter(|(at, _)| *at == host).collect();
            for at in listened {
                after.wake.extend(state.backlogs.remove(&at).and_then(|backlog| backlog.acceptor));
            }
            if dark {
                let now_us = state.now_us;
                state.on_the_way.retain(|_, packet| packet.from != host || packet.sent_us <= now_us);
                state.held.retain(|(from, _), _| *from != host);
                state.hold_all();
            }
        }
        after.run();
    }

    /// Holds what one machine sends another until it is undone as often.
    pub(crate) fn block(&self, from: Host, to: Host) {
        let mut state = self.state();
        *state.blocks.entry((from, to)).or_default() += 1;
        state.hold_all();
    }

    /// Undoes one [`Wire::block`].
    pub(crate) fn unblock(&self, from: Host, to: Host) {
        let mut state = self.state();
        let blocks = state.blocks.entry((from, to)).or_default();
        *blocks = blocks.saturating_sub(1);
        state.release_all();
    }

    /// How long packets take at most when no fault slows them.
    pub(crate) fn latency_max(&self) -> Duration {
        self.state().latency_max
    }

    /// Packets take up to this long, everywhere or on the links of one machine. Of several such the worst counts.
    pub(crate) fn slow_down(&self, host: Option<Host>, latency_max: Duration) {
        self.state().slowed.push((host, latency_max));
    }

    /// Undoes one [`Wire::slow_down`].
    pub(crate) fn speed_up(&self, host: Option<Host>, latency_max: Duration) {
        let mut state = self.state();
        if let Some(found) = state.slowed.iter().position(|slowed| *slowed == (host, latency_max)) {
            state.slowed.swap_remove(found);
        }
    }

    /// Begins a connection to `name:port`.
    pub(crate) fn connect(&self, from: Host, address: &str) -> io::Result<End> {
        let mut state = self.state();
        let (name, port) = address
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{address:?} is not host:port")))?;
        let to = *state.names.get(name).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no machine {name:?}")))?;
        let end = End { connection: state.next_connection, client: true };
        state.next_connection += 1;
        let own_port = state.ports[from];
        state.ports[from] = own_port.checked_add(1).unwrap_or(49_152);
        state.sockets.insert(end, Socket::new(from, to, false));
        state.send(from, to, end.other(), Kind::Syn { port, from: address_of(from, own_port) });
        Ok(end)
    }

    pub(crate) fn poll_connected(&self, end: End, cx: &Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let Some(socket) = state.sockets.get_mut(&end) else { return Poll::Ready(Err(reset())) };
        if socket.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        if socket.established {
            return Poll::Ready(Ok(()));
        }
        let old = put(&mut socket.reader, cx);
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn listen(&self, host: Host, port: u16) -> io::Result<SocketAddr> {
        let mut state = self.state();
        if state.backlogs.contains_key(&(host, port)) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, format!("port {port} is in use")));
        }
        state.backlogs.insert((host, port), Backlog::default());
        Ok(address_of(host, port))
    }

    pub(crate) fn poll_accept(&self, host: Host, port: u16, cx: &Context<'_>) -> Poll<io::Result<(End, SocketAddr)>> {
        let mut state = self.state();
        let Some(backlog) = state.backlogs.get_mut(&(host, port)) else { return Poll::Ready(Err(reset())) };
        if let Some(accepted) = backlog.waiting.pop_front() {
            return Poll::Ready(Ok(accepted));
        }
        let old = put(&mut backlog.acceptor, cx);
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn stop_listening(&self, host: Host, port: u16) {
        let backlog = self.state().backlogs.remove(&(host, port));
        for (end, _) in backlog.into_iter().flat_map(|backlog| backlog.waiting) {
            self.close(end);
        }
    }

    /// Bytes that a connection takes before the other end has read any.
    pub(crate) fn set_window(&self, end: End, window_bytes: usize) {
        if let Some(socket) = self.state().sockets.get_mut(&end) {
            socket.window_bytes = window_bytes;
        }
    }

    pub(crate) fn poll_read(&self, end: End, cx: &Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        let Some(socket) = state.sockets.get_mut(&end) else { return Poll::Ready(Err(reset())) };
        let mut read_bytes = 0;
        while let Some(first) = socket.inbox.front_mut()
            && out.remaining() > 0
        {
            let part = first.len().min(out.remaining());
            out.put_slice(&first[..part]);
            first.advance(part);
            read_bytes += part;
            if first.is_empty() {
                socket.inbox.pop_front();
            }
        }
        if read_bytes > 0 {
            socket.uncredited_bytes += read_bytes;
            if socket.uncredited_bytes * 4 >= PLAYER_WINDOW_BYTES && !socket.reset {
                let credit = std::mem::take(&mut socket.uncredited_bytes);
                let (host, peer) = (socket.host, socket.peer);
                state.send(host, peer, end.other(), Kind::Credit(credit));
            }
            return Poll::Ready(Ok(()));
        }
        if socket.reset {
            return Poll::Ready(Err(reset()));
        }
        if socket.eof || out.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let old = put(&mut socket.reader, cx);
        drop(state);
        drop(old);
        Poll::Pending
    }

    pub(crate) fn poll_write(&self, end: End, cx: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        let Some(socket) = state.sockets.get_mut(&end) else { return Poll::Ready(Err(reset())) };
        if socket.reset || socket.fin_sent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = socket.window_bytes.saturating_sub(socket.in_flight_bytes);
        if room == 0 && !bytes.is_empty() {
            let old = put(&mut socket.writer, cx);
            drop(state);
            drop(old);
            return Poll::Pending;
        }
        let part = bytes.len().min(room).min(PACKET_BYTES);
        socket.in_flight_bytes += part;
        let (host, peer) = (socket.host, socket.peer);
        state.send(host, peer, end.other(), Kind::Data(Bytes::copy_from_slice(&bytes[..part])));
        Poll::Ready(Ok(part))
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown(&self, end: End) {
        let mut state = self.state();
        let Some(socket) = state.sockets.get_mut(&end) else { return };
        if !std::mem::replace(&mut socket.fin_sent, true) && !socket.reset {
            let (host, peer) = (socket.host, socket.peer);
            state.send(host, peer, end.other(), Kind::Fin);
        }
    }

    /// The application lets go of an end.
    pub(crate) fn close(&self, end: End) {
        let mut state = self.state();
        let Some(socket) = state.sockets.remove(&end) else { return };
        if !socket.reset && socket.established {
            let unread = !socket.inbox.is_empty();
            let (host, peer) = (socket.host, socket.peer);
            if unread {
                state.send(host, peer, end.other(), Kind::Reset);
            } else if !socket.fin_sent {
                state.send(host, peer, end.other(), Kind::Fin);
            }
        }
        drop(state);
        drop(socket);
    }
}

impl State {
    fn is_held(&self, from: Host, to: Host) -> bool {
        from != to && (self.kernels[to] == Kernel::Dark || self.blocks.get(&(from, to)).is_some_and(|blocks| *blocks > 0))
    }

    fn latency_us(&mut self, from: Host, to: Host) -> u64 {
        if from == to {
            return LOOPBACK_US;
        }
        let here = |at: Option<Host>| at.is_none_or(|at| at == from || at == to);
        let slowed = self.slowed.iter().filter(|(at, _)| here(*at)).map(|(_, latency)| *latency).max();
        let max = slowed.unwrap_or(self.latency_max).max(self.latency_max);
        let seed = self.seed;
        let chance = self.chances.entry((from, to)).or_insert_with(|| seed.stream(&format!("link {from} {to}")));
        // Most packets are fast: a fifth of the range in the mean, as an exponential distribution has it.
        let share = (-chance.random_range(f64::MIN_POSITIVE..1.0).ln() / 5.0).min(1.0);
        let (min_us, max_us) = (self.latency_min.as_micros() as f64, max.as_micros() as f64);
        (min_us + (max_us - min_us).max(0.0) * share) as u64
    }

    fn send(&mut self, from: Host, to: Host, end: End, kind: Kind) {
        let sent_us = match &self.turn {
            Some(turn) => turn.began_us + interpose::now().saturating_sub(turn.own).as_micros() as u64,
            None => self.now_us,
        };
        tracing::trace!(target: "wire", from, to, connection = end.connection, "sent");
        let packet = Packet { from, to, sent_us, end, kind };
        if self.is_held(from, to) {
            self.held.entry((from, to)).or_default().push_back(packet);
        } else {
            self.set_out(packet, sent_us);
        }
    }

    fn set_out(&mut self, packet: Packet, at_us: u64) {
        let arrival_us = at_us + self.latency_us(packet.from, packet.to);
        let newest = self.newest.entry(packet.end).or_default();
        *newest = arrival_us.max(*newest);
        let key = (*newest, self.next_packet);
        self.next_packet += 1;
        self.on_the_way.insert(key, packet);
    }

    /// Holds what is on its way over links that are blocked by now.
    fn hold_all(&mut self) {
        let stuck: Vec<(u64, u64)> =
            self.on_the_way.iter().filter(|(_, p)| self.is_held(p.from, p.to)).map(|(key, _)| *key).collect();
        for key in stuck {
            if let Some(packet) = self.on_the_way.remove(&key) {
                self.held.entry((packet.from, packet.to)).or_default().push_back(packet);
            }
        }
    }

    /// Sends out what was held on links that are open by now.
    fn release_all(&mut self) {
        let open: Vec<(Host, Host)> = self.held.keys().copied().filter(|(from, to)| !self.is_held(*from, *to)).collect();
        for link in open {
            for packet in self.held.remove(&link).unwrap_or_default() {
                let at_us = self.now_us.max(packet.sent_us);
                self.set_out(packet, at_us);
            }
        }
    }

    fn arrive(&mut self, packet: Packet, after: &mut After) {
        let Packet { from, to, end, kind, .. } = packet;
        tracing::trace!(target: "wire", from, to, connection = end.connection, "arrived");
        if let Kind::Syn { port, from: address } = kind {
            let backlog = self.backlogs.get_mut(&(to, port)).filter(|backlog| backlog.waiting.len() < BACKLOG);
            let Some(backlog) = backlog else { return self.send(to, from, end.other(), Kind::Reset) };
            backlog.waiting.push_back((end, address));
            after.wake.extend(backlog.acceptor.take());
            self.sockets.insert(end, Socket::new(to, from, true));
            return self.send(to, from, end.other(), Kind::SynAck);
        }
        let Some(socket) = self.sockets.get_mut(&end) else {
            return match kind {
                Kind::SynAck | Kind::Data(_) => self.send(to, from, end.other(), Kind::Reset),
                Kind::Fin | Kind::Credit(_) | Kind::Reset | Kind::Syn { .. } => {}
            };
        };
        match kind {
            Kind::SynAck => socket.established = true,
            Kind::Data(bytes) => socket.inbox.push_back(bytes),
            Kind::Credit(bytes) => {
                socket.in_flight_bytes = socket.in_flight_bytes.saturating_sub(bytes);
                after.wake.extend(socket.writer.take());
                return;
            }
            Kind::Fin => socket.eof = true,
            Kind::Reset => {
                socket.reset = true;
                after.wake.extend(socket.writer.take());
            }
            Kind::Syn { .. } => {}
        }
        after.wake.extend(socket.reader.take());
    }
}
