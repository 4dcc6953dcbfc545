//! The queue, its dead-letter queue and the mapping to the function: sends the plan's messages and delivers them until
//! none is left.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqs_etl_local::clock::Clock;
use sqs_etl_local::function::{Function, Invocation, InvocationResult};
use sqs_etl_local::mapping::{BatchReport, Mapping, MappingConfig};
use sqs_etl_local::queue::{Message, Queue};
use sqs_etl_local::response::Verdict;

use crate::interrupt::Interrupt;
use crate::terminal::Progress;

use super::plan::Plan;

/// How often a message is delivered before it goes to the dead-letter queue.
pub const MAX_RECEIVES: u32 = 3;
/// Long enough for a debug build with 10,000 messages on a busy machine.
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(60);

/// Everything between the sender and the function, and what has passed through it.
pub struct Delivery<'a> {
    pub function: &'a Function,
    pub batch_size: usize,
    /// How long each invocation took that the function answered, the lost answer's included.
    pub times: Vec<Duration>,
    /// How many messages were delivered, one that came again counted again.
    pub deliveries: usize,
    /// The invocation whose answer got lost.
    pub lost: Option<String>,
    queue: Arc<Queue>,
    dead_letters: Arc<Queue>,
    mapping: Mapping,
    clock: Clock,
    sent_ms: u64,
    handed_back: HashSet<String>,
    /// At which invocation the function shall be killed before its answer arrives.
    lose_at: Option<usize>,
}

impl<'a> Delivery<'a> {
    /// Two empty queues and a mapping.
    pub fn prepare(plan: &Plan, batch_size: usize, function: &'a Function) -> Result<Self> {
        let clock = Clock::starting_now();
        let dead_letters = Queue::builder("logins-dead").create(&clock)?;
        // Six times the function's timeout, as AWS advises, and the window.
        let batching_window = Duration::from_secs(u64::from(batch_size > 10));
        let queue = Queue::builder("logins")
            .visibility_timeout(6 * FUNCTION_TIMEOUT + batching_window)
            .dead_letters(&dead_letters, MAX_RECEIVES)
            .create(&clock)?;
        let function_timeout = FUNCTION_TIMEOUT;
        let config = MappingConfig { batch_size, batching_window, function_timeout, ..MappingConfig::default() };
        let mapping = Mapping::new(&queue, config)?;
        Ok(Self {
            function,
            batch_size,
            times: Vec::new(),
            deliveries: 0,
            lost: None,
            sent_ms: clock.now_ms(),
            queue,
            dead_letters,
            mapping,
            clock,
            handed_back: HashSet::new(),
            lose_at: plan.lose_an_answer.then_some(plan.order.len() / batch_size / 2),
        })
    }

    /// Sends all messages. The first time some are sent twice, if the plan says so.
    pub fn send(&self, plan: &Plan, pass: u16) -> Result<()> {
        let once: Vec<usize> = (0..plan.messages.len()).collect();
        for position in if pass == 1 { &plan.order } else { &once } {
            let planned = &plan.messages[*position];
            let message = Message::new(planned.body.as_str()).id(planned.id.as_str()).sent_ms(self.sent_ms);
            self.queue.send(message).with_context(|| format!("send the message of line {}", planned.place))?;
        }
        Ok(())
    }

    /// Delivers until the queue is empty. The clock jumps to where the next message comes back.
    ///
    /// # Errors
    /// If the function fails as a whole: here nobody else is to blame for it.
    pub fn run(&mut self, progress: &mut Progress, interrupt: &Interrupt) -> Result<()> {
        let all = self.queue.depth().visible;
        loop {
            interrupt.check()?;
            let report = self.mapping.clone().run_once(|event| self.invoke(event));
            match (report, self.queue.next_visible_ms()) {
                (Some(report), _) => self.note(&report)?,
                (None, Some(at_ms)) => self.clock.advance_to(at_ms),
                (None, None) => break,
            }
            let depth = self.queue.depth();
            progress.delivering(all - depth.visible - depth.in_flight, all, self.handed_back.len());
        }
        progress.delivering(all, all, self.handed_back.len());
        Ok(())
    }

    /// The ids of the messages in the dead-letter queue, each once.
    pub fn dead_letters(&self) -> HashSet<String> {
        self.dead_letters.peek().into_iter().filter_map(|message| message.id).collect()
    }

    fn invoke(&mut self, event: String) -> Invocation {
        let mut invocation = self.function.invoke(event, FUNCTION_TIMEOUT);
        let InvocationResult::Response(_) = invocation.result else { return invocation };
        self.times.push(invocation.duration);
        if self.lose_at.is_some_and(|at| at < self.times.len()) {
            self.lose_at = None;
            self.lost = Some(invocation.request_id.clone());
            self.function.recycle();
            invocation.result = InvocationResult::Crashed(None);
        }
        invocation
    }

    fn note(&mut self, report: &BatchReport) -> Result<()> {
        self.deliveries += report.message_ids.len();
        match &report.verdict {
            Verdict::Succeeded => {}
            Verdict::Partial { failed } => self.handed_back.extend(failed.iter().cloned()),
            Verdict::AllFailed { .. } if self.lost.as_ref() == Some(&report.invocation.request_id) => {}
            Verdict::AllFailed { why } => bail!("{why}"),
        }
        Ok(())
    }
}
