"""The real services behave as their fixtures say."""

from __future__ import annotations

import urllib.error
import urllib.request

import aio_pika
import docker
import docker.errors
import pymongo
import pytest
from pymongo.write_concern import WriteConcern

from devservices.mongodb_node import Node as MongoNode
from devservices.mongodb_node import initiate, url_of
from devservices.rabbitmq_node import Node as RabbitNode
from tests.services.fixtures import Database, Registry, Vhost
from tests.services.management import Management


@pytest.mark.rabbitmq
async def test_a_message_crosses_a_fresh_vhost(rabbitmq_vhost: Vhost) -> None:
    async with await aio_pika.connect(rabbitmq_vhost.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        queue = await channel.declare_queue("q", durable=True)
        await channel.default_exchange.publish(aio_pika.Message(b"hello"), "q")
        message = await queue.get()
        assert message is not None
        assert message.body == b"hello"
        await message.ack()


@pytest.mark.rabbitmq
def test_a_vhost_can_be_made_and_is_gone_when_deleted(rabbitmq_management_url: str) -> None:
    management = Management(rabbitmq_management_url)
    management.add_vhost("test-to-delete")
    assert "test-to-delete" in management.vhosts()
    management.delete_vhost("test-to-delete")
    assert "test-to-delete" not in management.vhosts()


@pytest.mark.mongodb
def test_the_replica_set_takes_journalled_majority_writes_and_transactions(
    mongodb_database: Database,
) -> None:
    concern = WriteConcern(w="majority", j=True)
    with pymongo.MongoClient[dict[str, object]](mongodb_database.url) as client:
        collection = client[mongodb_database.name].get_collection("c", write_concern=concern)
        collection.insert_one({"_id": 1, "n": 0})
        with client.start_session() as session, session.start_transaction():
            collection.update_one({"_id": 1}, {"$inc": {"n": 1}}, session=session)
        assert collection.find_one({"_id": 1}) == {"_id": 1, "n": 1}


@pytest.mark.rabbitmq
async def test_a_nodes_persistent_message_outlives_its_kill(own_rabbitmq: RabbitNode) -> None:
    async with await aio_pika.connect(own_rabbitmq.url) as connection:
        channel = await connection.channel(publisher_confirms=True)
        await channel.declare_queue("q", durable=True)
        kept = aio_pika.Message(b"kept", delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(kept, "q")
    own_rabbitmq.settle()
    own_rabbitmq.kill()
    own_rabbitmq.start()
    async with await aio_pika.connect(own_rabbitmq.url) as connection:
        channel = await connection.channel()
        message = await (await channel.declare_queue("q", durable=True)).get()
        assert message is not None
        assert message.body == b"kept"
        await message.ack()


@pytest.mark.mongodb
def test_a_replica_set_takes_writes_again_after_its_kill(own_mongodb: MongoNode) -> None:
    with pymongo.MongoClient[dict[str, object]](url_of([own_mongodb])) as client:
        collection = client["kill"].get_collection("c", write_concern=WriteConcern("majority"))
        collection.insert_one({"_id": 1})
        own_mongodb.kill()
        own_mongodb.start()
        initiate([own_mongodb])
        collection.insert_one({"_id": 2})
        assert [entry["_id"] for entry in collection.find()] == [1, 2]


@pytest.mark.docker
@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("alpine:3.18.3", ["sh", "-c", "echo hello"]),
        ("ubuntu:mantic", ["bash", "-c", "echo hello"]),
    ],
)
def test_a_container_of_each_usual_image_says_hello(
    docker_engine: docker.DockerClient, image: str, command: list[str]
) -> None:
    assert docker_engine.containers.run(image, command, remove=True) == b"hello\n"


def test_podman_runs_a_container_by_dockers_api(
    podman_host: str, docker_engine: docker.DockerClient
) -> None:
    archive = docker_engine.images.get("alpine:3.18.3").save(named=True)
    podman = docker.DockerClient(base_url=podman_host)
    try:
        podman.images.load(b"".join(archive))
        said = podman.containers.run("alpine:3.18.3", ["echo", "hello"], remove=True)
        assert said == b"hello\n"
    finally:
        podman.close()


def test_the_registry_refuses_strangers(registry: Registry) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"http://{registry.address}/v2/")
    refused.value.close()


def test_the_registry_takes_and_gives_images(
    registry: Registry, docker_engine: docker.DockerClient
) -> None:
    name = f"{registry.address}/hello"
    login = {"username": registry.username, "password": registry.password}
    docker_engine.images.get("alpine:3.18.3").tag(name, "1")
    assert "error" not in docker_engine.images.push(name, "1", auth_config=login)
    docker_engine.images.remove(f"{name}:1")
    with pytest.raises(docker.errors.APIError):
        docker_engine.images.pull(name, "1")
    assert f"{name}:1" in docker_engine.images.pull(name, "1", auth_config=login).tags
    docker_engine.images.remove(f"{name}:1")
