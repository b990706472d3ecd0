"""The ladder: a search whose survivors are trained anew, rung by rung, each a size up."""
