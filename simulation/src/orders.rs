//! What an operator would do by hand, done to a running node at any moment: pass leadership on, make a snapshot now.
//!
//! A fault gives the order from outside; whoever watches the node carries it out within, and counts what was done.

use std::cell::RefCell;
use std::collections::BTreeMap;

use marchland_raft::{Group, Role};

use crate::machine::{self, MachineName};
use crate::trace_line;

/// Something that a node is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Every group that the node leads is passed on to another replica that has caught up.
    PassOn,
    /// Every group is made durable now, and its log purged.
    Persist,
}

#[derive(Default)]
struct Orders {
    given: BTreeMap<MachineName, Vec<Order>>,
    done: BTreeMap<MachineName, u64>,
}

thread_local! {
    static ORDERS: RefCell<Orders> = RefCell::new(Orders::default());
}

/// Starts this thread's run.
pub fn begin() {
    ORDERS.with(|orders| *orders.borrow_mut() = Orders::default());
}

/// Tells a machine to do something. One that is down, or runs no node, does not.
pub fn give(machine: &MachineName, order: Order) {
    ORDERS.with(|orders| orders.borrow_mut().given.entry(machine.clone()).or_default().push(order));
}

/// How often a machine has done something that it was told.
#[must_use]
pub fn done(machine: &MachineName) -> u64 {
    ORDERS.with(|orders| orders.borrow().done.get(machine).copied().unwrap_or_default())
}

/// Forgets what a machine was told and has not done.
pub fn withdraw(machine: &MachineName) {
    ORDERS.with(|orders| orders.borrow_mut().given.remove(machine));
}

/// Begins what the machine whose turn it is was told. Called by whoever watches its node.
pub fn carry_out(groups: impl FnOnce() -> Vec<Group>) {
    let name = machine::current_name();
    let given = ORDERS.with(|orders| orders.borrow_mut().given.remove(&name)).unwrap_or_default();
    if !given.is_empty() {
        tokio::task::spawn_local(obey(name, given, groups()));
    }
}

async fn obey(name: MachineName, given: Vec<Order>, groups: Vec<Group>) {
    for order in given {
        for group in &groups {
            let result = match order {
                Order::PassOn => pass_on(group).await,
                Order::Persist => group.persist_now().await.map(|durable| durable.is_some()),
            };
            match result {
                Ok(true) => {
                    trace_line!("{order:?} of {}", group.id());
                    ORDERS.with(|orders| *orders.borrow_mut().done.entry(name.clone()).or_default() += 1);
                }
                Ok(false) => {}
                Err(error) => trace_line!("{order:?} of {}: {error}", group.id()),
            }
        }
    }
}

async fn pass_on(group: &Group) -> Result<bool, marchland_raft::ProposeError> {
    let status = group.status();
    let (Role::Leader(_), Some(own)) = (status.role, status.leader) else { return Ok(false) };
    let Some(heir) = status.voters.iter().copied().find(|replica| *replica != own) else { return Ok(false) };
    group.transfer_leadership(heir).await?;
    Ok(true)
}
