//! Definitions and their hashes. The flows are those of `tests/golden/flows.py`, built here from the
//! nodes that they come to; the hashes stand in the manifest, too.

use std::collections::BTreeSet;

use sayiir_core::definition::{OnError, OnMax, OnTimeout};
use sayiir_core::policy::{self, Retry, TaskPolicy};
use sayiir_core::wire::{decode_definition, encode_definition};
use sayiir_core::{Definition, NodeSpec, TaskSpec};

use super::{frozen, golden};

fn plain(name: &str) -> TaskSpec {
    TaskSpec {
        name: name.into(),
        policy: TaskPolicy::default(),
    }
}

fn tuned() -> TaskSpec {
    let tags = ["gpu", "eu", "größe"].map(str::to_owned);
    TaskSpec {
        name: "tuned".into(),
        policy: TaskPolicy {
            retry: Retry {
                max_retries: 5,
                initial_delay_s: 0.25,
                multiplier: 1.5,
                max_delay_s: Some(60.0),
                jitter: 0.5,
            },
            timeout_us: Some(5_400_000_000),
            tags: policy::tags("tuned", tags).unwrap(),
            priority: 1,
        },
    }
}

fn task(name: &str, task: u32) -> NodeSpec {
    let name = name.into();
    NodeSpec::Task { name, task }
}

fn wait(name: &str, event: &str, timeout_us: Option<i64>, on_timeout: OnTimeout) -> NodeSpec {
    NodeSpec::Wait {
        name: name.into(),
        event: event.into(),
        timeout_us,
        on_timeout,
    }
}

fn child(name: &str, workflow: &str, body: Vec<NodeSpec>) -> NodeSpec {
    NodeSpec::Child {
        name: name.into(),
        workflow: workflow.into(),
        body,
    }
}

fn fork(name: &str, branches: Vec<(&str, Vec<NodeSpec>)>) -> NodeSpec {
    NodeSpec::Fork {
        name: name.into(),
        branches: owned(branches),
    }
}

fn owned(branches: Vec<(&str, Vec<NodeSpec>)>) -> Vec<(String, Vec<NodeSpec>)> {
    branches
        .into_iter()
        .map(|(name, body)| (name.to_owned(), body))
        .collect()
}

fn map(name: &str, body: Vec<NodeSpec>, concurrency: Option<u32>, on_error: OnError) -> NodeSpec {
    NodeSpec::Map {
        name: name.into(),
        body,
        concurrency,
        on_error,
    }
}

fn spread(name: &str, body: Vec<NodeSpec>, on_error: OnError) -> NodeSpec {
    NodeSpec::Spread {
        name: name.into(),
        body,
        on_error,
    }
}

fn repeat(name: &str, body: Vec<NodeSpec>, max_iterations: u32, on_max: OnMax) -> NodeSpec {
    NodeSpec::Loop {
        name: name.into(),
        body,
        max_iterations,
        on_max,
    }
}

/// The flow `nested`, whose four tasks are numbered from `first`.
fn nested(first: u32) -> Vec<NodeSpec> {
    vec![NodeSpec::Route {
        name: "which way?".into(),
        key: first,
        arms: owned(vec![
            (
                "left/right",
                vec![task("step", first + 1), task("step", first + 2)],
            ),
            ("50%", vec![task("step", first + 3)]),
        ]),
        default: None,
    }]
}

fn everything() -> (Vec<TaskSpec>, Vec<NodeSpec>) {
    let four = || ["key", "step", "step", "step"].map(plain);
    let mut tasks = vec![tuned()];
    tasks.extend(four());
    tasks.extend(["[0]#1", "body", "other"].map(plain));
    tasks.extend(four());
    tasks.extend(["step", "body"].map(plain));
    tasks.extend(four());
    let again = vec![
        child("inner", "inner", vec![task("step", 12)]),
        task("body", 13),
    ];
    let nodes = vec![
        task("tuned", 0),
        fork(
            "fork",
            vec![
                ("a~2", nested(1)),
                ("b", vec![task("[0]#1", 5), task("body", 6)]),
            ],
        ),
        task("other", 7),
        map("nested", nested(8), None, OnError::Fail),
        repeat("again", again, 10, OnMax::Fail),
        NodeSpec::Delay {
            name: "z".into(),
            duration_us: 0,
        },
        wait("e", "e", None, OnTimeout::Fail),
        child("nested", "nested", nested(14)),
    ];
    (tasks, nodes)
}

fn definitions() -> Vec<(&'static str, &'static str, Definition)> {
    let build = |name: &str, tasks: &[&str], nodes: Vec<NodeSpec>| {
        Definition::build(name, tasks.iter().copied().map(plain).collect(), &nodes).unwrap()
    };
    let step = || task("step", 0);
    let (tasks, nodes) = everything();
    let all = Definition::build("alles 🎉", tasks, &nodes).unwrap();
    let two = vec![tuned(), plain("step")];
    let two = Definition::build("tuned", two, &[task("tuned", 0), task("step", 1)]).unwrap();
    let both = vec![
        ("left", vec![step(), task("other", 1)]),
        ("right", vec![task("step", 2)]),
    ];
    let choose = NodeSpec::Route {
        name: "choose".into(),
        key: 0,
        arms: owned(vec![
            ("a", vec![task("step", 1)]),
            ("b", vec![task("other", 2), task("step", 3)]),
        ]),
        default: Some(vec![task("other", 4)]),
    };
    let rest = NodeSpec::Delay {
        name: "rest".into(),
        duration_us: 90_000_000,
    };
    let new_year = NodeSpec::DelayUntil {
        name: "new year".into(),
        at_us: 1_893_456_000_000_000,
    };
    let day = Some(86_400_000_000);
    let waits = vec![
        wait("payment", "paid", day, OnTimeout::Continue),
        wait("paid", "paid", None, OnTimeout::Fail),
    ];
    let children = vec![
        child("first", "inner", vec![step()]),
        child("inner", "inner", vec![task("step", 1)]),
    ];
    let thrice = vec![step(), task("other", 1), task("step", 2), task("step", 3)];
    let names = ["step", "other", "step", "step"];
    let keyed = ["key", "step", "other", "step", "other"];
    let mapped = map("step", vec![step()], Some(7), OnError::Collect);
    let each = map("each", vec![step()], None, OnError::Fail);
    let each_spread = spread("each", vec![task("step", 1)], OnError::Collect);
    let inside = format!("each/{}", "µ".repeat(120));
    let lots = vec![spread(
        "lots",
        vec![spread(&inside, vec![task("tuned", 0)], OnError::Fail)],
        OnError::Fail,
    )];
    let looped = repeat("body", vec![task("body", 0)], 300, OnMax::ExitWithLast);
    vec![
        (
            "definition-task",
            HASH_TASK,
            build("one task", &["step"], vec![step()]),
        ),
        (
            "definition-repeated",
            HASH_REPEATED,
            build("repeated", &names, thrice),
        ),
        ("definition-tuned", HASH_TUNED, two),
        (
            "definition-fork",
            HASH_FORK,
            build(
                "forked",
                &["step", "other", "step", "join"],
                vec![fork("both", both), task("join", 3)],
            ),
        ),
        (
            "definition-map",
            HASH_MAP,
            build("mapped", &["step"], vec![mapped]),
        ),
        (
            "definition-map-of-flow",
            HASH_MAP_OF_FLOW,
            build("mapped flow", &["step"], vec![each]),
        ),
        (
            "definition-route",
            HASH_ROUTE,
            build("routed", &keyed, vec![choose]),
        ),
        (
            "definition-loop",
            HASH_LOOP,
            build("looped", &["body"], vec![looped]),
        ),
        (
            "definition-delay",
            HASH_DELAY,
            build("delayed", &[], vec![rest]),
        ),
        (
            "definition-delay-until",
            HASH_DELAY_UNTIL,
            build("put off", &[], vec![new_year]),
        ),
        ("definition-wait", HASH_WAIT, build("waiting", &[], waits)),
        (
            "definition-child",
            HASH_CHILD,
            build("parent", &["step", "step"], children),
        ),
        (
            "definition-spread",
            HASH_SPREAD,
            build(
                "spread out",
                &["step", "step"],
                vec![step(), each_spread.clone()],
            ),
        ),
        (
            "definition-spread-nested",
            HASH_SPREAD_NESTED,
            Definition::build("spread twice", vec![tuned()], &lots).unwrap(),
        ),
        ("definition-everything", HASH_EVERYTHING, all),
    ]
}

const HASH_TASK: &str = "49faa3ffc7b83b9d3a9d503940dad4e82be894909d7fc29c19dbd7d5f4cad7c3";
const HASH_REPEATED: &str = "c976e0bf197704608c59494dbe4b0b8e7a3975a1736f8ed82794126dadf3d07b";
const HASH_TUNED: &str = "9c55394485576b1db8171b8bdcdc455fac0075fbec209917733f13118a5615d3";
const HASH_FORK: &str = "7279f5fb0bde4054f15ae17686f83f2d2c8238db826cc3c4912e1eac2ca10555";
const HASH_MAP: &str = "06b7056760534dabe28dd108a897344a1bfb5784857fd0ed370bd02b4a82e25c";
const HASH_MAP_OF_FLOW: &str = "d6441a3246d066f96f3a4bbd9ca8fd33bba1fc2d14b9d69a2cb0d70cc0863b15";
const HASH_ROUTE: &str = "cd113a6ad3e48f0ba1d39d22ccbf58098bf6be7135b9649b00f718a74bbbb2e0";
const HASH_LOOP: &str = "13e37d35469de74712156512bf4045f88396c203cec1033f0c46b746665f4b86";
const HASH_DELAY: &str = "6d538cadc12db3046ec41fad47c70bb3cf26f19b35603141bab6be15ef7a5643";
const HASH_DELAY_UNTIL: &str = "8d8f33908018d58fec719a61e6ca6b2f615c23373a14b4784a214a6b5a68aa3a";
const HASH_WAIT: &str = "39600773ab69623502e07975dfae3c71776ff6189159081f42e6be9b76cb23df";
const HASH_CHILD: &str = "3defef7fb0e8472561fc3f241d96b9ca66b8009731b32f89b28c81155e8535b0";
const HASH_SPREAD: &str = "d07535affa0af3d6337fd18328eb2a325fa3032b1bbfb7e1f1bd8e467a717cf4";
const HASH_SPREAD_NESTED: &str = "3f9e398770c06fbc630c2aaae5cf12607db552985b8cc05ebbcad54773435174";
const HASH_EVERYTHING: &str = "076876fa6ba2fd7461a8ea49f72db3424e1c3d0ceec9716252b33dd8c4ec2bc6";

#[test]
fn definitions_and_their_hashes_are_what_they_were() {
    let definitions = definitions();
    let known: BTreeSet<String> = definitions
        .iter()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    assert_eq!(known, frozen("definition-"));
    for (name, hash, def) in definitions {
        let bytes = golden(name);
        assert_eq!(decode_definition(&bytes).as_ref(), Ok(&def), "{name}");
        assert_eq!(encode_definition(&def), bytes, "{name}");
        assert_eq!(def.hash_hex(), hash, "{name}");
    }
}

#[test]
fn what_items_run_is_what_it_was() {
    let all = definitions();
    let def = |name: &str| {
        let found = all.iter().find(|(known, ..)| *known == name);
        found.map(|(_, _, def)| def.clone()).unwrap()
    };
    let items = |def: &Definition| def.all_items().next().unwrap().as_ref().clone();
    let nested = items(&items(&def("definition-spread-nested")));
    assert_eq!(nested.name.len(), 256, "{}", nested.name);
    for (name, expected) in [
        ("items", items(&def("definition-spread"))),
        ("items-nested", nested),
    ] {
        let bytes = golden(name);
        assert_eq!(decode_definition(&bytes).as_ref(), Ok(&expected), "{name}");
        assert_eq!(encode_definition(&expected), bytes, "{name}");
    }
}
