//! What machines and wires promise, shown by the smallest software that can notice.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use marchland_proto::net::{Listener, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;

use super::*;
use crate::interpose::{self, Taken};
use crate::point::{self, Armed, Then};

/// Runs a test on a thread of its own that has entered a simulation.
fn simulated(test: impl FnOnce(&mut World) + Send + 'static) {
    let thread = std::thread::Builder::new().spawn(|| {
        let _guard = interpose::enter(1, Taken::EVERYTHING);
        let network = NetworkOptions { latency_min: Duration::from_millis(1), latency_max: Duration::from_millis(4) };
        test(&mut World::new(Seed(1), network));
    });
    thread.unwrap().join().unwrap();
}

fn run(world: &mut World, steps: u32) {
    for _ in 0..steps {
        world.step().unwrap();
    }
}

fn name(text: &str) -> MachineName {
    text.into()
}

/// A machine that sends back what it hears, a byte at a time.
async fn echo(boot: Boot) -> anyhow::Result<()> {
    let listener = boot.transport.listen("0.0.0.0:7").await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::task::spawn_local(async move {
            while let Ok(byte) = stream.read_u8().await {
                if stream.write_u8(byte).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// What somebody who sends a byte every ten milliseconds has heard, and what became of the connection.
#[derive(Default)]
struct Heard {
    bytes: RefCell<Vec<u8>>,
    /// How often the machine's own clock let it send.
    sent: Cell<u32>,
    ends: RefCell<Vec<ErrorKind>>,
}

async fn ask(boot: Boot, heard: Rc<Heard>) -> anyhow::Result<()> {
    loop {
        match boot.transport.connect("n1:7").await {
            Err(error) => heard.ends.borrow_mut().push(error.kind()),
            Ok(stream) => {
                let (mut input, mut output) = tokio::io::split(stream);
                let listening = async {
                    loop {
                        match input.read_u8().await {
                            Ok(byte) => heard.bytes.borrow_mut().push(byte),
                            Err(error) => return error.kind(),
                        }
                    }
                };
                let talking = async {
                    for byte in 0..=u8::MAX {
                        if let Err(error) = output.write_u8(byte).await {
                            return error.kind();
                        }
                        heard.sent.set(heard.sent.get() + 1);
                        sleep(Duration::from_millis(10)).await;
                    }
                    std::future::pending().await
                };
                let end = tokio::select! { end = listening => end, end = talking => end };
                heard.ends.borrow_mut().push(end);
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

fn pair(world: &mut World) -> Rc<Heard> {
    let heard: Rc<Heard> = Rc::default();
    world.add("n1", echo);
    let asks = heard.clone();
    world.add("n2", move |boot| ask(boot, asks.clone()));
    heard
}

#[test]
fn bytes_arrive_in_order_and_once() {
    simulated(|world| {
        let heard = pair(world);
        run(world, 500);
        let bytes = heard.bytes.borrow();
        assert!(bytes.len() > 40, "{bytes:?}");
        assert!(bytes.iter().enumerate().all(|(at, byte)| at == usize::from(*byte)), "{bytes:?}");
        assert!(heard.ends.borrow().is_empty());
    });
}

#[test]
fn a_link_that_is_blocked_in_one_direction_holds_that_one_alone() {
    simulated(|world| {
        let heard = pair(world);
        run(world, 100);
        world.block(&name("n1"), &name("n2"));
        run(world, 6);
        let before = heard.bytes.borrow().len();
        run(world, 300);
        assert_eq!(heard.bytes.borrow().len(), before, "nothing comes back");
        assert!(heard.sent.get() > 35, "what goes there is not held: {}", heard.sent.get());
        world.unblock(&name("n1"), &name("n2"));
        run(world, 10);
        assert!(heard.bytes.borrow().len() > before + 25, "what was held arrives");
        assert!(heard.bytes.borrow().iter().enumerate().all(|(at, byte)| at == usize::from(*byte)));
    });
}

#[test]
fn a_killed_process_resets_and_is_refused_until_it_is_back() {
    simulated(|world| {
        let heard = pair(world);
        run(world, 100);
        assert!(world.kill(&name("n1")) && !world.kill(&name("n1")));
        run(world, 50);
        assert_eq!(heard.ends.borrow().first(), Some(&ErrorKind::ConnectionReset));
        assert_eq!(heard.ends.borrow().last(), Some(&ErrorKind::ConnectionRefused));
        world.start(&name("n1"));
        let before = heard.bytes.borrow().len();
        run(world, 100);
        assert!(heard.bytes.borrow().len() > before);
    });
}

#[test]
fn a_machine_without_power_says_nothing_and_knows_nothing_when_it_is_back() {
    simulated(|world| {
        let heard = pair(world);
        run(world, 100);
        assert!(world.cut_power(&name("n1")));
        run(world, 10);
        let before = heard.bytes.borrow().len();
        run(world, 400);
        assert!(heard.ends.borrow().is_empty(), "{:?}", heard.ends.borrow());
        assert_eq!(heard.bytes.borrow().len(), before);
        world.start(&name("n1"));
        run(world, 50);
        assert_eq!(*heard.ends.borrow(), [ErrorKind::ConnectionReset], "what is sent to it finds no connection");
        assert!(heard.bytes.borrow().len() > before);
    });
}

#[test]
fn a_machine_that_stands_still_does_not_notice_and_everyone_else_goes_on() {
    simulated(|world| {
        let heard = pair(world);
        run(world, 100);
        assert!(world.pause(&name("n1")) && !world.pause(&name("n1")));
        run(world, 6);
        let (before, sent) = (heard.bytes.borrow().len(), heard.sent.get());
        run(world, 300);
        assert_eq!(heard.bytes.borrow().len(), before);
        assert!(heard.sent.get() >= sent + 29, "its sockets take what comes: {}", heard.sent.get());
        world.resume(&name("n1"));
        run(world, 10);
        assert!(heard.bytes.borrow().len() >= before + 29, "all of it is answered at once");
        assert!(heard.ends.borrow().is_empty());
    });
}

/// Notes its clock every ten milliseconds of it.
async fn clockwork(times: Rc<RefCell<Vec<Duration>>>) -> anyhow::Result<()> {
    let mut pulse = tokio::time::interval(Duration::from_millis(10));
    pulse.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        pulse.tick().await;
        times.borrow_mut().push(interpose::now());
    }
}

fn clock(world: &mut World) -> Rc<RefCell<Vec<Duration>>> {
    let times: Rc<RefCell<Vec<Duration>>> = Rc::default();
    let notes = times.clone();
    world.add("n1", move |_| clockwork(notes.clone()));
    times
}

#[test]
fn the_clock_of_a_machine_that_stood_still_has_jumped() {
    simulated(|world| {
        let times = clock(world);
        run(world, 95);
        world.pause(&name("n1"));
        run(world, 200);
        world.resume(&name("n1"));
        run(world, 100);
        let gaps: Vec<u128> = times.borrow().windows(2).map(|two| (two[1] - two[0]).as_millis()).collect();
        assert_eq!(gaps.iter().filter(|gap| **gap >= 200).count(), 1, "{gaps:?}");
        let last = *times.borrow().last().unwrap();
        assert!(world.elapsed().abs_diff(last) < Duration::from_millis(12), "{last:?}, the world is at {:?}", world.elapsed());
    });
}

#[test]
fn clocks_that_drift_tick_more_often_or_less() {
    simulated(|world| {
        let times = clock(world);
        let ticks = |world: &mut World, ppm| {
            world.drift(&name("n1"), ppm);
            let before = times.borrow().len();
            run(world, 1_000);
            times.borrow().len() - before
        };
        assert!((99..=101).contains(&ticks(world, 0)));
        assert!((129..=131).contains(&ticks(world, 300_000)));
        assert!((69..=71).contains(&ticks(world, -300_000)));
    });
}

#[test]
fn a_machine_that_stutters_is_late_and_skips() {
    simulated(|world| {
        let times = clock(world);
        world.stutter(&name("n1"), Some(Duration::from_millis(60)));
        run(world, 1_000);
        assert!(world.stuttered(&name("n1")) > 5);
        assert!(times.borrow().len() < 95, "{}", times.borrow().len());
        world.stutter(&name("n1"), None);
        let before = times.borrow().len();
        run(world, 1_000);
        assert!(times.borrow().len() - before >= 98);
    });
}

#[test]
fn what_happens_on_one_link_moves_nothing_on_another() {
    let when = |busy: bool| {
        let (out, into) = std::sync::mpsc::channel();
        simulated(move |world| {
            let heard = pair(world);
            if busy {
                let others: Rc<Heard> = Rc::default();
                world.add("n3", move |boot| ask(boot, others.clone()));
            }
            let mut arrived = Vec::new();
            for _ in 0..300 {
                world.step().unwrap();
                arrived.push(heard.bytes.borrow().len());
            }
            out.send(arrived).unwrap();
        });
        into.recv().unwrap()
    };
    assert_eq!(when(false), when(true));
}

/// Meets a point every ten milliseconds, and notes its clock before and after.
async fn pass_a_point(boots: Rc<Cell<u32>>, times: Rc<RefCell<Vec<Duration>>>) -> anyhow::Result<()> {
    boots.set(boots.get() + 1);
    loop {
        sleep(Duration::from_millis(10)).await;
        let before = interpose::now();
        marchland_types::point!("test.passed");
        if !machine::is_ghost() {
            times.borrow_mut().push(interpose::now() - before);
        }
    }
}

#[test]
fn a_machine_dies_or_stands_still_at_the_very_statement() {
    simulated(|world| {
        point::begin();
        let (boots, times): (Rc<Cell<u32>>, Rc<RefCell<Vec<Duration>>>) = Default::default();
        let notes = (boots.clone(), times.clone());
        world.add("n1", move |_| pass_a_point(notes.0.clone(), notes.1.clone()));
        let arm = |hits_left, then| point::arm(Armed { point: "test.passed".to_owned(), machine: None, hits_left, then });

        arm(3, Then::Pause(Duration::from_millis(200)));
        run(world, 250);
        assert_eq!(times.borrow()[..3], [Duration::ZERO, Duration::ZERO, Duration::from_millis(200)]);
        assert!((4..=6).contains(&times.borrow().len()), "it stood still: {}", times.borrow().len());

        for (then, dark) in [(Then::Kill, false), (Then::Cut, true)] {
            let before = times.borrow().len();
            arm(2, then);
            run(world, 100);
            assert_eq!(world.phase(&name("n1")), Phase::Down { dark });
            assert_eq!(times.borrow().len(), before + 1, "what follows the statement has not happened");
            world.start(&name("n1"));
        }
        run(world, 20);
        assert_eq!(boots.get(), 3);
        assert_eq!(point::fired_by_role(), [("test.passed (follower)".to_owned(), 3)].into());
    });
}
