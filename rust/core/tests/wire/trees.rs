//! Random definitions: every kind of node, nested, with names that repeat or look like structure.

use proptest::collection::vec;
use proptest::prelude::*;
use sayiir_core::definition::{OnError, OnMax, OnTimeout};
use sayiir_core::policy::{self, Retry, TaskPolicy};
use sayiir_core::{Definition, NodeSpec, TaskSpec};

/// Tasks that every random tree may use.
const TASKS: u32 = 4;
/// The longest duration, in microseconds.
pub const CENTURY_US: i64 = 3_155_760_000_000_000;

fn name() -> impl Strategy<Value = String> {
    // Few names, so that repeats are common, and some that try to look like structure.
    prop_oneof![
        "[ab]",
        "[a-c/#~%\\[\\]é😀' ]{0,6}x",
        Just("n".repeat(256)),
        Just("~default".to_owned()),
    ]
}

fn task() -> impl Strategy<Value = TaskSpec> {
    let retry = (
        any::<u32>(),
        0.0..3e9,
        0.0..1e300,
        proptest::option::of(0.0..3e9),
        0.0..=1.0,
    );
    let rest = (
        proptest::option::of(0..=CENTURY_US),
        vec("[a-zé ]{0,63}x", 0..4),
        1..=5u8,
    );
    (name(), retry, rest).prop_map(|(name, retry, (timeout_us, tags, priority))| TaskSpec {
        name: name.into(),
        policy: TaskPolicy {
            retry: Retry {
                max_retries: retry.0,
                initial_delay_s: retry.1,
                multiplier: retry.2,
                max_delay_s: retry.3,
                jitter: retry.4,
            },
            timeout_us,
            tags: policy::tags("t", tags).unwrap(),
            priority,
        },
    })
}

fn leaf() -> impl Strategy<Value = NodeSpec> {
    let timeout_us = proptest::option::of(0..=CENTURY_US);
    prop_oneof![
        4 => (name(), 0..TASKS).prop_map(|(name, task)| NodeSpec::Task { name, task }),
        1 => (name(), 0..=CENTURY_US)
            .prop_map(|(name, duration_us)| NodeSpec::Delay { name, duration_us }),
        1 => (name(), -(10i64.pow(18))..=10i64.pow(18))
            .prop_map(|(name, at_us)| NodeSpec::DelayUntil { name, at_us }),
        1 => (name(), name(), timeout_us, any::<bool>()).prop_map(
            |(name, event, timeout_us, fail)| NodeSpec::Wait {
                name,
                event,
                timeout_us,
                on_timeout: if fail { OnTimeout::Fail } else { OnTimeout::Continue },
            }
        ),
    ]
}

/// Branches of distinct names: the first of a name stays.
fn branches(
    block: impl Strategy<Value = Vec<NodeSpec>>,
    least: usize,
) -> impl Strategy<Value = Vec<(String, Vec<NodeSpec>)>> {
    vec((name(), block), least..4).prop_map(|mut branches| {
        branches.sort_by(|a, b| a.0.cmp(&b.0));
        branches.dedup_by(|a, b| a.0 == b.0);
        branches
    })
}

fn node() -> impl Strategy<Value = NodeSpec> {
    leaf().prop_recursive(5, 40, 4, |inner| {
        let block = vec(inner, 1..4).boxed();
        let default = proptest::option::of(block.clone());
        prop_oneof![
            (name(), branches(block.clone(), 1))
                .prop_map(|(name, branches)| NodeSpec::Fork { name, branches }),
            (
                name(),
                block.clone(),
                proptest::option::of(1..=u32::MAX),
                any::<bool>()
            )
                .prop_map(|(name, body, concurrency, fail)| NodeSpec::Map {
                    name,
                    body,
                    concurrency,
                    on_error: if fail {
                        OnError::Fail
                    } else {
                        OnError::Collect
                    },
                }),
            (name(), block.clone(), any::<bool>()).prop_map(|(name, body, fail)| {
                NodeSpec::Spread {
                    name,
                    body,
                    on_error: if fail {
                        OnError::Fail
                    } else {
                        OnError::Collect
                    },
                }
            }),
            (name(), 0..TASKS, branches(block.clone(), 1), default).prop_map(
                |(name, key, arms, default)| NodeSpec::Route {
                    name,
                    key,
                    arms,
                    default,
                }
            ),
            (name(), 0..TASKS, block.clone()).prop_map(|(name, key, body)| NodeSpec::Route {
                name,
                key,
                arms: Vec::new(),
                default: Some(body),
            }),
            (name(), block.clone(), 1..=1_000_000_000u32, any::<bool>()).prop_map(
                |(name, body, max_iterations, fail)| NodeSpec::Loop {
                    name,
                    body,
                    max_iterations,
                    on_max: if fail {
                        OnMax::Fail
                    } else {
                        OnMax::ExitWithLast
                    },
                }
            ),
            (name(), name(), block).prop_map(|(name, workflow, body)| NodeSpec::Child {
                name,
                workflow,
                body,
            }),
        ]
    })
}

pub fn definition() -> impl Strategy<Value = Definition> {
    (name(), vec(task(), TASKS as usize), vec(node(), 1..5))
        .prop_map(|(name, tasks, root)| Definition::build(&name, tasks, &root).unwrap())
}
