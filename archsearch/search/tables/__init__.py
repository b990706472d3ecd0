"""Tables of a spec, one file for what each is about; `archsearch.search.spec` is made of them."""
