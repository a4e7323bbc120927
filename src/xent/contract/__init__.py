"""Floor 1: arguments become canonical form, or a message that says how to mend them.

Nothing in this room computes a loss. It knows shapes, dtypes, options and words:

- ``rows``: the language between the floors: rows, statistics, coefficients;
- ``call``: the arguments of a loss, checked together;
- ``layout``: any accepted shape as rows, *outer × classes × inner*, in place where strides allow;
- ``targets``: labels as indices or as probabilities, and which positions count;
- ``weights``: class weights, sample weights;
- ``dtypes``: what is accumulated in which precision, and what is returned;
- ``reduction``: none, mean, sum;
- ``denominator``: what a mean divides by;
- ``binary``: what the binary loss accepts;
- ``inspection``: what is going on around a call;
- ``remedies``, ``errors``: what a mistake most likely is, and how a message says so.
"""
