"""The stack of template.yaml, built by `sam build` and deployed to the emulator by `sam deploy`, and its function."""

import json
import secrets
import shutil
import subprocess

import yaml

from postgres import ROOT
from queues import Queue
from waiting import until

BUILT = ROOT / ".aws-sam" / "build" / "template.yaml"
# What differs from the template's defaults. Three deliveries, so that a message is dead-lettered soon.
MAX_RECEIVE_COUNT = 3
FUNCTION_TIMEOUT = 15
# Seconds in which a message that was handed back stays away. The template's 150 are checked as they were deployed, then
# replaced by this, or each redelivery would take minutes. AWS itself would not create a mapping for such a queue.
VISIBILITY_TIMEOUT = 8


class Stack:
    """A deployed stack: `queue`, its `dead_letters`, `database`, `log`, and the ids of all that it made."""

    def __init__(self, emulator, database, folder):
        self.emulator, self.database = emulator, database
        self.name = f"e2e-{secrets.token_hex(4)}"
        deploy(emulator, database, self.name, folder)
        self.outputs = self._outputs()
        self.lambdas = emulator.client("lambda")
        sqs = emulator.client("sqs")
        dead_letters = Queue(sqs, self.outputs["DeadLetterQueueUrl"])
        self.queue = Queue(sqs, self.outputs["QueueUrl"], dead_letters)
        self.attributes_as_deployed = self.queue.attributes()
        self.mapping_as_deployed = self._mapping()
        self._restate_concurrency()
        self.queue.set_visibility_timeout(VISIBILITY_TIMEOUT)
        self.secrets = emulator.client("secretsmanager")
        # As docs/DEPLOY.md has it: the database's user gets the password that the stack made.
        database.set_password(self.login()["password"])
        self.log = Log(emulator.client("logs"), self.outputs["LogGroupName"])

    def _outputs(self):
        [stack] = self.emulator.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def _mapping(self):
        answer = self.lambdas.list_event_source_mappings(EventSourceArn=self.queue.arn)
        [mapping] = answer["EventSourceMappings"]
        return mapping

    def _restate_concurrency(self):
        """ministack keeps a number out of a template's parameter as text, and its poller fails at it."""
        mapping = self.mapping_as_deployed
        self.lambdas.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig=mapping["ScalingConfig"])

    def login(self):
        """What the stack's secret says of the database."""
        return json.loads(self._secret("DatabaseSecretArn"))

    def masking_key(self):
        return self._secret("MaskingSecretArn")

    def _secret(self, output):
        return self.secrets.get_secret_value(SecretId=self.outputs[output])["SecretString"]

    def put_login(self, login):
        self.secrets.put_secret_value(SecretId=self.outputs["DatabaseSecretArn"], SecretString=json.dumps(login))

    def map(self, queue):
        """Has the function work on one more queue; gives the mapping's id."""
        answer = self.lambdas.create_event_source_mapping(
            FunctionName=self.outputs["FunctionName"],
            EventSourceArn=queue.arn,
            BatchSize=10,
            FunctionResponseTypes=["ReportBatchItemFailures"],
        )
        return answer["UUID"]

    def unmap(self, mapping):
        self.lambdas.delete_event_source_mapping(UUID=mapping)

    def rows(self):
        """The table's rows by message id."""
        columns = "user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date"
        rows = self.database.query(f"select message_id::text, {columns} from user_logins")
        by_id = {row[0]: row[1:] for row in rows}
        assert len(by_id) == len(rows), "a message is in the table twice"
        return by_id

    def wait_for_rows(self, ids, limit=60):
        """Until the table has exactly these messages. What must never be stored is thus never there."""
        until(f"{len(ids)} rows are stored", lambda: self.database.count() >= len(ids), limit)
        stored = set(self.rows())
        assert stored == set(ids), f"{len(stored - set(ids))} rows too many, {len(set(ids) - stored)} missing"

    def wait_until_drained(self, limit=60):
        until("the queue is empty", self.queue.is_empty, limit)

    def clean(self):
        """An empty table and empty queues, for the next test."""
        self.wait_until_drained()
        self.queue.dead_letters.take()
        self.database.query("truncate user_logins")

    def delete(self):
        """The masking secret and the dead-letter queue outlive it."""
        cloudformation = self.emulator.client("cloudformation")
        cloudformation.delete_stack(StackName=self.name)
        cloudformation.get_waiter("stack_delete_complete").wait(
            StackName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


def deploy(emulator, database, name, folder):
    """`sam deploy` of what `sam build` has built, and of nothing that somebody has kept in samconfig.toml."""
    if not BUILT.is_file():
        raise FileNotFoundError(f"{BUILT} is not there: sam build (make e2e does)")
    settings = folder / "samconfig.toml"
    settings.write_text("version = 0.1\n")
    host, port = database.server.address_inside
    parameters = {
        "DatabaseHost": host,
        "DatabasePort": port,
        "DatabaseName": database.name,
        "DatabaseUser": database.role,
        "DatabaseSslMode": "disable",
        "MaxReceiveCount": MAX_RECEIVE_COUNT,
        "FunctionTimeout": FUNCTION_TIMEOUT,
        "BatchWindow": 1,
    }
    command = ["sam", "deploy", "--template-file", BUILT, "--config-file", settings, "--stack-name", name]
    command += ["--resolve-s3", "--capabilities", "CAPABILITY_IAM", "--no-confirm-changeset", "--no-progressbar"]
    command += ["--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items())]
    env = {**emulator.env, "HOME": str(folder), "SAM_CLI_TELEMETRY": "0", "SAM_CLI_POLL_DELAY": "0.5"}
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"sam deploy failed:\n{done.stdout}\n{done.stderr}")
    shutil.rmtree(folder, ignore_errors=True)


class Log:
    """The function's log group: its own lines, which are JSON, and Lambda's about it."""

    def __init__(self, logs, group):
        self.logs, self.group = logs, group
        self.seen = set()

    def forget(self):
        """The invocations that are there now are some earlier test's."""
        self.seen = {line.get("requestId") for line in self._lines()}

    def text(self):
        """All of it, earlier tests included."""
        return "\n".join(self._events())

    def lines(self, message):
        """The function's own lines with this constant sentence, of invocations since `forget`."""
        new = [line for line in self._lines() if line.get("requestId") not in self.seen]
        return [line for line in new if line.get("message") == message]

    def handed_back(self):
        """Of each message that was handed back, the (receive count, reason) of every time."""
        times = {}
        for line in self.lines("message handed back"):
            times.setdefault(line["message_id"], []).append((line["receive_count"], line["reason"]))
        return {message_id: sorted(deliveries) for message_id, deliveries in times.items()}

    def total(self, count):
        """The sum of one count, such as `committed`, over all batches since `forget`."""
        return sum(line[count] for line in self.lines("batch done"))

    def _lines(self):
        return [json.loads(event) for event in self._events() if event.startswith("{")]

    def _events(self):
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=self.group)
        return [event["message"] for page in pages for event in page["events"]]


class Template(yaml.SafeLoader):
    """template.yaml with its short functions, `!Ref` and such, as ("Ref", argument)."""


def short_function(loader, name, node):
    kinds = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return (name, kinds[type(node)](node))


Template.add_multi_constructor("!", short_function)


def template():
    return yaml.load((ROOT / "template.yaml").read_text(), Template)
