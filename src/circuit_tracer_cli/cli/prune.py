"""`prune`: keep the nodes and edges that account for most of the influence."""

from __future__ import annotations

from circuit_tracer_cli.cli import options as opt
from circuit_tracer_cli.cli.destinations import STREAM, check_graph_destination, read_rooted, write_graph
from circuit_tracer_cli.cli.libraries import silence_libraries
from circuit_tracer_cli.cli.output import Output
from circuit_tracer_cli.cli.summary import GraphSummary, headline


def prune(
    graph: opt.GraphArg = STREAM,
    root: opt.RootOpt = None,
    output_path: opt.GraphOutputOpt = None,
    node_threshold: opt.NodeThresholdOpt = None,
    edge_threshold: opt.EdgeThresholdOpt = None,
    json_: opt.JsonOpt = False,
    quiet: opt.QuietOpt = False,
) -> None:
    """Prune a graph to the nodes and edges that account for most of the influence on its targets.

    Prints what is kept and both scores of the full graph. Without -o, nothing is written.
    """
    output = Output(quiet=quiet, stdout_taken=output_path == STREAM)
    check_graph_destination(output_path)
    silence_libraries(output)
    raw = read_rooted(graph, root, output)
    from circuit_tracer_cli.graph.prune import pruned_graph

    pruned = pruned_graph(raw, node_threshold, edge_threshold)
    if output_path is not None:
        write_graph(pruned, output_path)
    summary = GraphSummary(pruned, n_nodes=0, n_paths=0)
    if json_:
        output.data({**summary.to_dict(), "edges_before": pruned.pruning and pruned.pruning.n_edges_before})
    elif not (quiet and output.stdout_taken):
        for line in headline(summary):
            output.result(line)
