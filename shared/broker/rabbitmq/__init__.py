"""The broker that coordinators and workers on different machines meet at: RabbitMQ 3.10 to 4.x.

Who is who, from the wire up: a `session` is one connection while it lives; a `link` is a connection that is always
being had, session after session; a `lane` is a channel for publishing on a link, and the `publisher` puts messages
into queues by lanes; a `tap` is a channel with a consumer and what is on loan through it; a `slot` (a worker's) and a
`subscription` (a coordinator's) each keep a tap; `upkeep` takes up again what is to go on for ever; `declarations`
says what each queue is, `figures` reads how full it is, `faults` puts the driver's errors into our words.

What becomes of its differing rules:

- **Queues** are durable, all of them: 4.3 refuses transient ones that are not exclusive. What need
  not survive is sent as a transient message; a node's own queue goes by `x-expires`. Messages of
  `claims`, `progress` and `heartbeat` go by `x-message-ttl`.
- **Priorities** 0 to 9 are kept by classic queues (`x-max-priority`) in every version. With
  `queue_type = quorum` they are ignored before 4.0; from 4.0 on there are two levels, 0 to 4 and
  5 to 9, of which the higher gets two turns of three.
- **Delivery limit**: classic queues have none, nor have quorum queues before 4.0. From 4.0 on those
  drop a message at its 20th return, which a task's may well see (each restart of a worker or of the
  broker is one); so they are declared with `x-delivery-limit = -1`. A queue made before an upgrade
  to 4.x can't take that: it is used as it is, with a warning that says so.
- **Acknowledgement time-out** (`consumer_timeout`, 30 minutes by default): RabbitMQ closes the channel of a slot
  whose task runs longer, and gives the message to another slot, where its claim is refused. The run
  goes on, by its grant; its delivery is lost, and the slot consumes again when the task has ended.
  No other channel notices.
"""

from shared.broker.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
