"""x"""
def test_x(cli, learns, toy_flags, make_csv):
    import time
    for _ in range(3):
        t=time.time()
        a = cli("tune", make_csv(), "--name", "x", *toy_flags, *learns, "--json")
        print(a.code, a.err[-600:], time.time()-t)
    print(a.json["scores"])
    a=cli("tune", make_csv(), "--name", "x", *toy_flags, *learns)
    print(a.out, a.err)
    assert 0
