"""flower_app: A Flower / PyTorch app."""

from typing import cast

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from disinherit.flower import owner_app
from flower_app.task import Net, load_data, size
from flower_app.task import test as test_fn
from flower_app.task import train as train_fn

# Flower ClientApp
app = owner_app(ClientApp(), model=Net, data=load_data, server_data="load_centralized_dataset")


@app.train()
def train(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    # Load the model and initialize it with the received weights
    model = Net()
    model.load_state_dict(msg.content.array_records["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")

    # Load the data
    partition_id = int(context.node_config["partition-id"])
    num_partitions = int(context.node_config["num-partitions"])
    trainloader, _ = load_data(partition_id, num_partitions, int(context.run_config["batch-size"]))

    # Call the training function
    lr = cast("float", msg.content.config_records["config"]["lr"])
    train_loss = train_fn(model, trainloader, int(context.run_config["local-epochs"]), lr, device)

    # Construct and return reply Message
    metrics = MetricRecord({"train_loss": train_loss, "num-examples": size(trainloader)})
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    # Load the model and initialize it with the received weights
    model = Net()
    model.load_state_dict(msg.content.array_records["arrays"].to_torch_state_dict())
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")

    # Load the data
    partition_id = int(context.node_config["partition-id"])
    num_partitions = int(context.node_config["num-partitions"])
    _, testloader = load_data(partition_id, num_partitions, int(context.run_config["batch-size"]))

    # Call the evaluation function
    loss, accuracy = test_fn(model, testloader, device)

    # Construct and return reply Message
    examples = size(testloader)
    metrics = MetricRecord({"eval_loss": loss, "eval_acc": accuracy, "num-examples": examples})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
